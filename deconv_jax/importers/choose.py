"""A file that some framework wrote → a network file, by the importer that reads it."""

from pathlib import Path

from deconv_jax.errors import SettingError
from deconv_jax.importers import keras, musicnn, stack, torch
from deconv_jax.system import locks

KINDS = ("keras", "torch", "musicnn")

_ENDINGS = {
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".safetensors": "torch",
    ".pt": "torch",
    ".pth": "torch",
    ".whl": "musicnn",
}


def kind_of(source: Path) -> str:
    """Which of `KINDS` a source is, by its name; ValueError if that does not tell."""
    kind = "musicnn" if source.is_dir() else _ENDINGS.get(source.suffix.lower(), "")
    if not kind:
        raise SettingError(f"auto: {source.name} ends like none of {', '.join(_ENDINGS)}; say which it is", "kind")
    return kind


def import_network(source, out, kind: str = "auto", spec=None, model: str = "MTT_vgg") -> Path:
    """Makes a network file.

    Args:
      source: file, or folder of musicnn's.
      out: folder for the network file.
      kind: one of `KINDS`, or "auto" for what the name tells.
      spec: file that says what the weights do not tell; needed but for musicnn.
      model: which of musicnn's taggers.

    Returns:
      The folder.

    Raises:
      InputError: the source or the spec cannot be used, or the folder cannot be written. ValueError: kind or spec are
        missing.
    """
    source = Path(source)
    kind = kind_of(source) if kind == "auto" else kind
    if kind != "musicnn" and not spec:
        raise SettingError("spec is missing: the weights do not tell the front end; see `bin/import_network --help`")
    with locks.writing(out, "out") as folder:
        if kind == "musicnn":
            musicnn.import_musicnn(source, folder, model)
        else:
            (keras.import_keras if kind == "keras" else torch.import_torch)(source, folder, stack.read_settings(spec))
    return folder
