"""Functions that do to their process what a decoder may do to it; called in workers."""

import ctypes
import os
import signal
import sys
import time

import numpy as np


def behave(how: str, path: str = ""):
    if how == "crash":
        ctypes.string_at(0)
    elif how == "spin":
        while True:
            pass
    elif how == "sleep":
        time.sleep(600)
    elif how == "hoard":
        return len(np.ones(2**32))
    elif how == "leave":
        os._exit(3)
    elif how == "raise":
        raise KeyError("no\nsuch")
    elif how == "print":
        print("noise")
        os.write(1, b"noise\n")
        print("noise", file=sys.stderr)
    elif how == "killed once":
        try:
            os.mkdir(path)
        except FileExistsError:
            return "survived"
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return how
