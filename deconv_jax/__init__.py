"""Hear what a convolutional network has learnt about music: deconvolution and auralisation in JAX.

    from deconv_jax import stft, deconvolve, auralise, load

Names are imported when they are first used, so `import deconv_jax` costs nothing.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "FrontEnd": "sound.front_end",
    "stft": "sound.spectrogram",
    "istft": "sound.spectrogram",
    "Block": "network.spec",
    "Dense": "network.spec",
    "Network": "network.model",
    "paper_network": "network.model",
    "deconvolve": "deconvolution.deconvolve",
    "Rule": "deconvolution.rule",
    "auralise": "sound.auralisation",
    "load": "training.workdir",
    "load_network": "network.file",
    "save_network": "network.file",
    "deconvolve_function": "deconvolution.any_model",
    "explain": "results.explanation",
    "listen": "page.player",
    "effects": "decision.effects",
    "attribute": "decision.attribution",
    "attribute_function": "decision.attribution",
    "faithfulness": "decision.faithfulness",
    "dissect": "results.dissection",
    "InputError": "errors",
    "SettingError": "errors",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'deconv_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"deconv_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
