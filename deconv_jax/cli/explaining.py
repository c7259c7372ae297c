"""Flags that several commands share of how a network is explained."""

from collections.abc import Callable
from typing import Any

from absl import flags

flags.disclaim_key_flags()


def define_way_back() -> Callable[[], dict[str, Any]]:
    """Defines --method and --norm_back; gives them as keywords of `deconvolve`."""
    method = flags.DEFINE_enum(
        "method",
        "deconvnet",
        ["deconvnet", "guided", "gradient"],
        "What passes an activation on the way back: the rectified signal; that, where the unit was active; the "
        "gradient.",
    )
    norm_back = flags.DEFINE_enum(
        "norm_back",
        "transpose",
        ["transpose", "inverse"],
        "What batch norm does on the way back: multiply by its scale as the gradient does, or divide by it.",
    )
    return lambda: {"method": method.value, "norm_back": norm_back.value}


def define_reading(default: str | None, more: str = "") -> flags.FlagHolder:
    """Defines --reading."""
    about = f"phase: the image is the magnitude (the paper). mask: it scales the STFT.{more}"
    return flags.DEFINE_enum("reading", default, ["phase", "mask"], about)


def define_answer() -> Callable[[], dict[str, Any]]:
    """Defines --by and --why, about what features do for the answer; gives them by name."""
    orders = "Order of the features: by effect on the likeliest class (its logit without it), or energy of the image."
    by = flags.DEFINE_enum("by", "effect", ["effect", "energy"], orders)
    about = "Explain the answer in sound: what spoke for it, what keeps it, what is left without that, what has to go."
    why = flags.DEFINE_boolean("why", True, about)
    return lambda: {"by": by.value, "why": why.value}
