"""The method as slow loops in float64, in the shape of the paper: what the fast code is held against."""

import numpy as np


def convolve(x, kernel, bias, padding):
    """x (height, width, in), kernel (kh, kw, in, out), bias (out,) → (height', width', out); no flip."""
    kh, kw = kernel.shape[:2]
    if padding == "SAME":
        x = np.pad(x, [((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2), (0, 0)])
    height, width = x.shape[0] - kh + 1, x.shape[1] - kw + 1
    y = np.zeros((height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            y[i, j] = np.tensordot(x[i : i + kh, j : j + kw], kernel, 3) + bias
    return y


def convolve_back(y, kernel, padding):
    """The transpose of `convolve` without bias."""
    kh, kw = kernel.shape[:2]
    x = np.zeros((y.shape[0] + kh - 1, y.shape[1] + kw - 1, kernel.shape[2]))
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            x[i : i + kh, j : j + kw] += kernel @ y[i, j]
    if padding == "SAME":
        top, left = (kh - 1) // 2, (kw - 1) // 2
        x = x[top : top + y.shape[0], left : left + y.shape[1]]
    return x


def pool(x, window, stride):
    """Maxima, and the (row, column) in x that each came from; the first of equals in row-major order."""
    height, width = ((n - w) // s + 1 for n, w, s in zip(x.shape, window, stride, strict=False))
    best = np.zeros((height, width, x.shape[2]))
    where = np.zeros((height, width, x.shape[2], 2), int)
    for i in range(height):
        for j in range(width):
            for c in range(x.shape[2]):
                top, left = i * stride[0], j * stride[1]
                cell = x[top : top + window[0], left : left + window[1], c]
                a, b = divmod(int(cell.argmax()), window[1])
                best[i, j, c], where[i, j, c] = cell[a, b], (top + a, left + b)
    return best, where


def unpool(values, where, size):
    x = np.zeros((*size, values.shape[2]))
    for i, j, c in np.ndindex(values.shape):
        x[(*where[i, j, c], c)] += values[i, j, c]
    return x


def deconvolve(blocks, params, magnitude, layer):
    """Images of all features, (maps, freq, time): forward, then unpool → ReLU → transposed convolution back down."""
    x, wheres, sizes = np.asarray(magnitude, np.float64)[..., None], [], []
    kernels = [np.asarray(params[f"conv{l}"]["kernel"], np.float64) for l in range(1, layer + 1)]
    for number, block in enumerate(blocks[:layer]):
        bias = np.asarray(params[f"conv{number + 1}"].get("bias", np.zeros(block.maps)), np.float64)
        x = np.maximum(convolve(x, kernels[number], bias, block.padding), 0)
        sizes.append(x.shape[:2])
        x, where = pool(x, block.pool, block.stride)
        wheres.append(where)
    images = []
    for feature in range(x.shape[2]):
        signal = np.zeros_like(x)
        signal[..., feature] = x[..., feature]
        for number in reversed(range(layer)):
            signal = unpool(signal, wheres[number], sizes[number])
            signal = convolve_back(np.maximum(signal, 0), kernels[number], blocks[number].padding)
        images.append(signal[..., 0])
    return np.stack(images)
