"""musicnn's published taggers `MTT_vgg` and `MSD_vgg` (Pons & Serra 2019) → network file, from the package's own wheel.

Input: log10(1 + 10⁴ · mel), 16 kHz, n_fft 512, hop 256, 96 bands (librosa's default filterbank over energies), 187
frames, axes (time, freq); batch norm of the input; 5 × [3×3 SAME convolution, ReLU, batch norm, max-pool VALID]; one
dense layer, a sigmoid for each of 50 tags. Its code pads the clip's ends by reflection, librosa's default then.

The weights are TensorFlow V2 checkpoint bundles: an index (a table of sorted keys in LevelDB's format, each value a
protocol buffer that says type, shape and place) and a data file of raw numbers. Both are read here, uncompressed as
TensorFlow writes them, without TensorFlow.
"""

import dataclasses
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deconv_jax.errors import InputError, SettingError
from deconv_jax.importers.stack import Layer, Settings, save
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import files

MODELS = ("MTT_vgg", "MSD_vgg")

FRONT_END = FrontEnd(
    sample_rate=16000,
    n_fft=512,
    hop=256,
    clip_seconds=186 * 256 / 16000,
    pad="reflect",
    kind="mel",
    bands=96,
    power=2,
    scale="log10",
    factor=1e4,
)

MTT = (
    "guitar,classical,slow,techno,strings,drums,electronic,rock,fast,piano,ambient,beat,violin,vocal,synth,"
    "female,indian,opera,male,singing,vocals,no vocals,harpsichord,loud,quiet,flute,woman,male vocal,no vocal,"
    "pop,soft,sitar,solo,man,classic,choir,voice,new age,dance,male voice,female vocal,beats,harp,cello,"
    "no voice,weird,country,metal,female voice,choral"
)
MSD = (
    "rock,pop,alternative,indie,electronic,female vocalists,dance,00s,alternative rock,jazz,beautiful,metal,"
    "chillout,male vocalists,classic rock,soul,indie rock,Mellow,electronica,80s,folk,90s,chill,instrumental,"
    "punk,oldies,blues,hard rock,ambient,acoustic,experimental,female vocalist,guitar,Hip-Hop,70s,party,"
    "country,easy listening,sexy,catchy,funk,electro,heavy metal,Progressive rock,60s,rnb,indie pop,sad,House,"
    "happy"
)

_POOLS = (((4, 1), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((4, 4), (4, 4)))
_LARGEST = 64 * 2**20


def import_musicnn(path, folder, model: str = "MTT_vgg") -> Path:
    """Writes the network file of one of musicnn's taggers.

    Args:
      path: the wheel (`pip download musicnn==0.1.0 --no-deps`), or a folder that holds the model's folder.
      folder: for the network file.
      model: one of `MODELS`.

    Returns:
      The folder.

    Raises:
      InputError: the model is not there, or is damaged.
      ValueError: unknown model.
    """
    if model not in MODELS:
        raise SettingError(f"model must be one of {', '.join(MODELS)}, not {model!r}")
    path, name = Path(path), files.shown(path)
    index, data = (_bytes(path, f"{model}/{part}", name) for part in (".index", ".data-00000-of-00001"))
    try:
        weights = bundle(index, data)
        layers = _layers(weights)
    except (ValueError, IndexError) as error:
        raise InputError(f"{name}: {model} is no readable checkpoint ({error}); download it again") from None
    except KeyError as error:
        raise InputError(f"{name}: {model} has no weight {error}; wanted is musicnn 0.1.0") from None
    labels = tuple((MTT if model.startswith("MTT") else MSD).split(","))
    settings = Settings(FRONT_END, labels, ("time", "freq"), "sigmoid")
    source = {"made_by": "bin/import_network", "file": path.name, "kind": "musicnn", "model": model}
    return save(folder, layers, settings, source, channels_first=False)


def _bytes(path: Path, member: str, name: str) -> bytes:
    """A file of the model, from the wheel or the folder."""
    try:
        if path.is_dir():
            places = [path / member, path / "musicnn" / member, path.parent / member]
            found = next((p for p in places if p.is_file()), None)
            if found is None:
                raise InputError(f"{name}: holds no {member}; name musicnn's wheel or the folder of its models")
            if found.stat().st_size > _LARGEST:
                raise InputError(f"{name}: {member} has {found.stat().st_size} bytes, too many for musicnn")
            return found.read_bytes()
        with zipfile.ZipFile(path) as wheel:
            info = wheel.getinfo(f"musicnn/{member}")
            if info.file_size > _LARGEST:
                raise InputError(f"{name}: {member} would unpack to {info.file_size} bytes, too many for musicnn")
            with wheel.open(info) as handle:
                return handle.read(info.file_size)
    except KeyError:
        raise InputError(f"{name}: holds no musicnn/{member}; wanted is the wheel of musicnn 0.1.0") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{name}: is no wheel that can be read ({error}); wanted is musicnn 0.1.0's") from None


def _layers(weights: dict[str, np.ndarray]) -> list[Layer]:
    def norm(number: int) -> Layer:
        name = "batch_normalization" + (f"_{number}" if number else "")
        parts = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
        return Layer("norm", name, {"epsilon": 1e-3}, {k: weights[f"{name}/{v}"] for k, v in parts.items()})

    layers = [norm(0)]
    for number, (window, stride) in enumerate(_POOLS, 1):
        name = f"{number}CNN"
        conv = {"kernel": weights[f"{name}/kernel"], "bias": weights[f"{name}/bias"]}
        layers.append(Layer("conv", name, {"padding": "SAME"}, conv))
        layers.append(Layer("activation", name, {"name": "relu"}))
        layers.append(norm(number))
        layers.append(Layer("pool", f"pool{number}", {"kind": "max", "window": window, "stride": stride}))
        layers.append(Layer("dropout", f"dropout{number}", {"rate": 0.25 if number < 5 else 0.5}))
    layers.append(Layer("flatten", "flatten"))
    return [*layers, Layer("dense", "dense", {}, {"kernel": weights["dense/kernel"], "bias": weights["dense/bias"]})]


# --- TensorFlow V2 checkpoint bundles --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Entry:
    kind: int
    shape: tuple[int, ...]
    offset: int
    size: int


def bundle(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """The float32 tensors of a checkpoint of one data file, by name; the optimiser's slots are left out.

    Raises:
      ValueError: no table, a compressed one, or an entry that does not fit its data.
    """
    found = {}
    for key, value in _table(index):
        name = key.decode("utf-8", "replace")
        if not name or name.rpartition("/")[2].startswith("Adam"):
            continue
        entry = _entry(value)
        if entry.kind != 1:  # DT_FLOAT
            continue
        if entry.size != 4 * int(np.prod(entry.shape, dtype=object)) or entry.offset + entry.size > len(data):
            raise SettingError(f"the weight {name} does not fit its data")
        numbers = np.frombuffer(data, "<f4", entry.size // 4, entry.offset)
        found[name] = numbers.reshape(entry.shape).astype(np.float32)
    return found


def _table(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table: footer → index block → data blocks."""
    if len(index) < 48 or index[-8:] != (0xDB4775248B80FB57).to_bytes(8, "little"):
        raise SettingError("its index is no table")
    footer = index[-48:]
    place = 0
    for _ in range(2):  # the block of metadata, which is empty
        _, place = _varint(footer, place)
    offset, place = _varint(footer, place)
    size, _ = _varint(footer, place)
    for _, handle in _block(index, offset, size):
        start, place = _varint(handle, 0)
        length, _ = _varint(handle, place)
        yield from _block(index, start, length)


def _block(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a block; each key shares its beginning with the one before it."""
    if offset + size + 5 > len(index) or size < 4:
        raise SettingError("its index is cut short")
    if index[offset + size]:
        raise SettingError("its index is compressed, which TensorFlow's own are not")
    block = index[offset : offset + size]
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + fresh]
        place += fresh
        yield key, block[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number in seven bits for each byte, and where it ends."""
    value, shift = 0, 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise SettingError("its index holds a number that never ends")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of the fields of a protocol buffer."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield tag >> 3, value
        elif wire in (1, 2, 5):
            length, place = _varint(message, place) if wire == 2 else ((8 if wire == 1 else 4), place)
            yield tag >> 3, message[place : place + length]
            place += length
        else:
            raise SettingError("its index holds a field of unknown kind")


def _entry(message: bytes) -> _Entry:
    """BundleEntryProto: dtype = 1, shape = 2 (dim = 2 (size = 1)), shard_id = 3, offset = 4, size = 5."""
    numbers: dict[int, int] = {}
    shape: list[int] = []
    for field, value in _fields(message):
        if isinstance(value, int):
            numbers[field] = value
        elif field == 2:
            for _, dim in _fields(value):
                sizes = [v for f, v in _fields(dim) if f == 1 and isinstance(v, int)] if isinstance(dim, bytes) else []
                shape.append(sizes[0] if sizes else 0)
    if numbers.get(3, 0):
        raise SettingError("its weights lie in several files")
    return _Entry(numbers.get(1, 0), tuple(shape), numbers.get(4, 0), numbers.get(5, 0))
