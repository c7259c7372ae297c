"""PyTorch as an expert would write it: what `sweep.py` and `train_step.py` compare this library with.

Maps are channels_last, (1, maps, freq, time). Kernels come in this library's layout, (height, width, in, out), and
every block is a 3×3 convolution with padding 1, ReLU and 2×2 max-pooling, as in the paper.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CHUNK, REWRITTEN_CHUNK, FIRST_LAYER_CHUNK = 4, 8, 16
"""Features walked back together, each the fastest of 1, 2, 4 … for its variant; in layer 1, a grouped convolution."""


class Trace(NamedTuple):
    """One block's pooled maps, its switches (flat positions before pooling) and its size before pooling."""

    pooled: torch.Tensor
    switches: torch.Tensor
    size: tuple[int, int]


def _channels_last(array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).contiguous(memory_format=torch.channels_last)


def forward_weights(kernels: Sequence[np.ndarray]) -> list[torch.Tensor]:
    return [_channels_last(k.transpose(3, 2, 0, 1)) for k in kernels]


def backward_weights(kernels: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Flipped, so that `conv2d` is the transposed convolution: faster than `conv_transpose2d` on a CPU."""
    return [_channels_last(k[::-1, ::-1].transpose(2, 3, 0, 1)) for k in kernels]


@torch.inference_mode()
def forward(magnitude: np.ndarray, weights: Sequence[torch.Tensor], layer: int) -> list[Trace]:
    """(freq, time) → one `Trace` for each block up to the layer."""
    x, trace = _channels_last(magnitude[None, None]), []
    for weight in weights[:layer]:
        x = F.relu_(F.conv2d(x, weight, padding=1))
        size = tuple(x.shape[-2:])
        x, switches = F.max_pool2d(x, 2, return_indices=True)
        trace.append(Trace(x, switches, size))
    return trace


@torch.inference_mode()
def sweep(trace: Sequence[Trace], weights: Sequence[torch.Tensor], layer: int, rewritten=False, chunk=None):
    """Images of all features of a layer, (features, freq, time).

    weights: those of `backward_weights`. rewritten: the last stage as a table and a batched product.
    """
    features = trace[layer - 1].pooled.shape[1]
    chunk = chunk or (FIRST_LAYER_CHUNK if layer == 1 else REWRITTEN_CHUNK if rewritten else CHUNK)
    lookup = _lookup(trace[0], weights[0]) if rewritten and layer > 1 else None
    # Repeated once a sweep: expanded switches would be copied by every `max_unpool2d`, which takes a fifth of a sweep.
    repeated = [
        t.switches.expand(chunk, -1, -1, -1).contiguous(memory_format=torch.channels_last) for t in trace[: layer - 1]
    ]
    images = torch.empty(features, *trace[0].size)
    for begin in range(0, features, chunk):
        some = slice(begin, min(begin + chunk, features))
        x = _first_step(trace[layer - 1], weights[layer - 1], some)
        for number in range(layer - 1, 0, -1):
            size = trace[number - 1].size
            if number == 1 and lookup is not None:
                x = _apply_lookup(F.relu_(x), lookup, size)
                break
            x = F.max_unpool2d(F.relu_(x), repeated[number - 1][: len(x)], 2, output_size=size)
            x = F.conv2d(x, weights[number - 1], padding=1)
        images[some] = x[:, 0]
    return images


def _first_step(block: Trace, weight: torch.Tensor, some: slice) -> torch.Tensor:
    """One live map for each feature: a grouped convolution, a group for each feature."""
    maps, switches = block.pooled[:, some].contiguous(), block.switches[:, some].contiguous()
    x = F.max_unpool2d(maps, switches, 2, output_size=block.size)
    count = x.shape[1]
    kernels = weight[:, some].transpose(0, 1).reshape(-1, 1, 3, 3)
    x = F.conv2d(x, kernels, padding=1, groups=count)
    return x.view(count, -1, *block.size).contiguous(memory_format=torch.channels_last)


def _lookup(block: Trace, weight: torch.Tensor) -> torch.Tensor:
    """The 4×4 patch that each map of each window writes into the image, (windows, maps, 16)."""
    maps, height, width = block.switches.shape[1:]
    row = block.switches[0] // block.size[1] - 2 * torch.arange(height)[:, None]
    column = block.switches[0] % block.size[1] - 2 * torch.arange(width)
    cell = (2 * row + column).permute(1, 2, 0).reshape(height * width, maps)
    patches = torch.zeros(4, maps, 4, 4)
    for a in range(2):
        for b in range(2):
            patches[2 * a + b, :, a : a + 3, b : b + 3] = weight[0].flip(1, 2)
    return patches.reshape(4 * maps, 16)[cell * maps + torch.arange(maps)]


def _apply_lookup(x: torch.Tensor, lookup: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(n, maps, h, w) → images (n, 1, freq, time): a product for each window, then an overlap-add."""
    count, maps, height, width = x.shape
    patches = torch.bmm(x.permute(2, 3, 0, 1).reshape(height * width, count, maps), lookup)
    patches = patches.view(height, width, count, 4, 4)
    padded = torch.zeros(count, 2 * height + 3, 2 * width + 3)
    for a in (0, 2):
        for b in (0, 2):
            part = patches[..., a : a + 2, b : b + 2].permute(2, 0, 3, 1, 4).reshape(count, 2 * height, 2 * width)
            padded[:, a : a + 2 * height, b : b + 2 * width] += part
    return padded[:, None, 1 : 1 + size[0], 1 : 1 + size[1]]


def captum_images(magnitude, weights: Sequence[torch.Tensor], layer: int, features: Sequence[int]) -> np.ndarray:
    """Captum's NeuronDeconvolution, one feature a call, (features, freq, time).

    The selector's value is Σ map · constant copy of map, whose gradient in the map is the map itself: the seed of
    our definition. The model ends at the layer, as an expert would cut it, and computes no gradient of weights.
    """
    from captum.attr import NeuronDeconvolution

    parts: list[nn.Module] = []
    for weight in weights[:layer]:
        convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
        convolution.weight = nn.Parameter(weight, requires_grad=False)
        parts += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
    method = NeuronDeconvolution(nn.Sequential(*parts), parts[-1])
    x, images = _channels_last(magnitude[None, None]).requires_grad_(), []
    for feature in features:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")
            seed = lambda maps, f=feature: (maps[:, f].detach() * maps[:, f]).sum(dim=(1, 2))  # noqa: E731
            images.append(method.attribute(x, seed).detach()[0, 0].numpy())
    return np.stack(images)


class Classifier(nn.Module):
    """The paper's network for training, with the parameters of a Flax one."""

    def __init__(self, params: dict, dropout: float):
        super().__init__()
        self.names = sorted(params, key=lambda name: (name == "output", name))
        layers: list[nn.Module] = []
        for name in self.names:
            kernel, bias = (torch.tensor(np.asarray(params[name][part])) for part in ("kernel", "bias"))
            if name.startswith("conv"):
                layer: nn.Module = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
                layer.weight = nn.Parameter(kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last))
            else:
                layer = nn.Linear(*kernel.shape)
                layer.weight = nn.Parameter(kernel.T.contiguous())
            layer.bias = nn.Parameter(bias)
            layers.append(layer)
        self.layers = nn.ModuleList(layers)
        self.drop = nn.Dropout(dropout)

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        """(clips, freq, time) → logits (clips, classes)."""
        x = magnitude[:, None].contiguous(memory_format=torch.channels_last)
        for name, layer in zip(self.names[:-1], self.layers, strict=False):
            if name.startswith("conv"):
                x = self.drop(F.max_pool2d(F.relu(layer(x), inplace=True), 2))
            else:
                x = x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x
                x = self.drop(F.relu(layer(x), inplace=True))
        return self.layers[-1](x)

    def gradients(self) -> dict[str, dict[str, np.ndarray]]:
        """In the layout of the Flax parameters."""
        found = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            kernel = layer.weight.grad
            kernel = kernel.permute(2, 3, 1, 0) if name.startswith("conv") else kernel.T
            found[name] = {"kernel": kernel.numpy().copy(), "bias": layer.bias.grad.numpy().copy()}
        return found


def magnitudes(waveforms: torch.Tensor, n_fft: int = 512, hop: int = 256) -> torch.Tensor:
    """int16 (clips, samples) → (clips, freq, time)."""
    spectrum = torch.stft(
        waveforms.float() / 32768, n_fft, hop, window=torch.hann_window(n_fft), pad_mode="constant", return_complex=True
    )
    return spectrum.abs()
