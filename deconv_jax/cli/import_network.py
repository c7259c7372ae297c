"""Makes a network file, which every command takes by --network=DIR, from a network that was trained elsewhere.

    bin/import_network --out=DIR --spec=SPEC.yaml model.keras       Keras: .keras, .h5, or the HDF5 of Keras 0.3
    bin/import_network --out=DIR --spec=SPEC.yaml weights.pt        PyTorch: .safetensors, or a state dict (.pt, .pth)
    bin/import_network --out=DIR --model=MTT_vgg musicnn-0.1.0-py3-none-any.whl
                                                                    musicnn (pip download musicnn==0.1.0 --no-deps)

The spec is YAML. It says what the weights do not: the front end, and where wanted labels, axes and layers, as in

    front_end: {sample_rate: 16000, n_fft: 512, hop: 256, clip_seconds: 3, kind: mel, bands: 96, power: 2, scale: log10}
    axes: [time, freq]             # of the network's input; [freq, time] if left out
    labels: [rock, jazz, metal]
    final: sigmoid                 # if the network ends in logits: softmax (the default) or sigmoid
    input: {mean: 0.5, scale: 2}   # the network sees (x - mean) / scale; a list has one for each frequency
    layers:                        # of weights that tell no architecture: PyTorch, Keras 0.3
      - conv: {weights: features.0, padding: 1}
      - norm: {weights: features.1}
      - relu
      - max_pool: {window: 2}
      - flatten
      - dense: {weights: classifier}
"""

import sys

from absl import flags

from deconv_jax.cli.launch import launch

_OUT = flags.DEFINE_string("out", None, "Folder for the network file.")
_SPEC = flags.DEFINE_string("spec", None, "YAML file: front end, labels, layers.")
_KINDS = "What the source is; auto goes by its name."
_KIND = flags.DEFINE_enum("kind", "auto", ["auto", "keras", "torch", "musicnn"], _KINDS)
_MODEL = flags.DEFINE_enum("model", "MTT_vgg", ["MTT_vgg", "MSD_vgg"], "Which of musicnn's taggers.")


def _import(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise flags.Error(f"bin/import_network takes one file or folder, not {len(arguments)}; see --help")
    if not _OUT.value:
        raise flags.Error("--out is missing: name a folder for the network file")
    from deconv_jax.importers import choose

    print(choose.import_network(arguments[0], _OUT.value, _KIND.value, _SPEC.value, _MODEL.value).absolute())
    return 0


def main() -> int:
    """Entry point of `bin/import_network` and `deconv-import`."""
    return launch(_import, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
