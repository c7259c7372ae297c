"""Finds an interpreter that has the package and runs one of its commands: lets `bin/…` work as typed."""

import importlib.util
import os
import sys
from pathlib import Path


def run(module: str) -> None:
    """Runs the module's `main` here, or in the checkout's `.venv`, or says how to install."""
    if importlib.util.find_spec("deconv_jax") and importlib.util.find_spec("jax"):
        sys.exit(importlib.import_module(module).main())
    root = Path(__file__).resolve().parent.parent
    python = root / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix) != root / ".venv":
        os.execv(python, [str(python), *sys.argv])
    sys.exit(f"error: deconv_jax is not installed for {sys.executable}: run `make install` in {root}")
