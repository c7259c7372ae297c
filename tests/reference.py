"""The method as slow loops in float64, in the shape of the paper: what the fast code is held against."""

import numpy as np

RELUS = {
    "linear": lambda x, slope: x,
    "relu": lambda x, slope: np.where(x > 0, x, 0),
    "relu6": lambda x, slope: np.where(x > 6, 6, np.where(x > 0, x, 0)),
    "leaky_relu": lambda x, slope: np.where(x > 0, x, slope * x),
}
SLOPES = {
    "linear": lambda x, slope: np.ones_like(x),
    "relu": lambda x, slope: np.where(x > 0, 1.0, 0.0),
    "relu6": lambda x, slope: np.where((x > 0) & (x < 6), 1.0, 0.0),
    "leaky_relu": lambda x, slope: np.where(x > 0, 1.0, slope),
}


def edges(padding, size, window, stride):
    """Cells added before and after each axis: TensorFlow's rule for SAME, none for VALID, or as the numbers say."""
    found = []
    for axis in range(2):
        side = padding if isinstance(padding, str) else padding[axis]
        if side == "SAME":
            out = int(np.ceil(size[axis] / stride[axis]))
            total = max((out - 1) * stride[axis] + window[axis] - size[axis], 0)
            side = (total // 2, total - total // 2)
        found.append((0, 0) if side == "VALID" else side)
    return found


def convolve(x, kernel, bias, padding, stride=(1, 1)):
    """x (height, width, in), kernel (kh, kw, in, out), bias (out,) → (height', width', out); no flip."""
    kh, kw = kernel.shape[:2]
    x = np.pad(x, [*edges(padding, x.shape, (kh, kw), stride), (0, 0)])
    height, width = (x.shape[0] - kh) // stride[0] + 1, (x.shape[1] - kw) // stride[1] + 1
    y = np.zeros((height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            top, left = i * stride[0], j * stride[1]
            y[i, j] = np.tensordot(x[top : top + kh, left : left + kw], kernel, 3) + bias
    return y


def convolve_back(y, kernel, padding, size, stride=(1, 1)):
    """The transpose of `convolve` without bias; size is that of its input."""
    kh, kw = kernel.shape[:2]
    (above, below), (before, after) = edges(padding, size, (kh, kw), stride)
    x = np.zeros((size[0] + above + below, size[1] + before + after, kernel.shape[2]))
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            top, left = i * stride[0], j * stride[1]
            x[top : top + kh, left : left + kw] += kernel @ y[i, j]
    return x[above : above + size[0], before : before + size[1]]


def pool(x, window, stride, padding="VALID"):
    """Maxima, and the (row, column) in x that each came from; the first of equals in row-major order."""
    around = edges(padding, x.shape, window, stride)
    x = np.pad(np.asarray(x, float), [*around, (0, 0)], constant_values=-np.inf)
    height, width = ((n - w) // s + 1 for n, w, s in zip(x.shape, window, stride, strict=False))
    best = np.zeros((height, width, x.shape[2]))
    where = np.zeros((height, width, x.shape[2], 2), int)
    for i in range(height):
        for j in range(width):
            for c in range(x.shape[2]):
                top, left = i * stride[0], j * stride[1]
                cell = x[top : top + window[0], left : left + window[1], c]
                a, b = divmod(int(cell.argmax()), window[1])
                best[i, j, c] = cell[a, b]
                where[i, j, c] = (top + a - around[0][0], left + b - around[1][0])
    return best, where


def unpool(values, where, size):
    x = np.zeros((*size, values.shape[2]))
    for i, j, c in np.ndindex(values.shape):
        x[(*where[i, j, c], c)] += values[i, j, c]
    return x


def average(x, window, stride, padding, count_padding=False):
    """Means over windows, and for every window the (rows, columns) in x that it covers, and how many cells count."""
    (above, below), (before, after) = edges(padding, x.shape, window, stride)
    height = (x.shape[0] + above + below - window[0]) // stride[0] + 1
    width = (x.shape[1] + before + after - window[1]) // stride[1] + 1
    means, where = np.zeros((height, width, x.shape[2])), {}
    for i in range(height):
        for j in range(width):
            top, left = i * stride[0] - above, j * stride[1] - before
            rows = slice(max(top, 0), min(top + window[0], x.shape[0]))
            columns = slice(max(left, 0), min(left + window[1], x.shape[1]))
            inside = (rows.stop - rows.start) * (columns.stop - columns.start)
            where[i, j] = (rows, columns), window[0] * window[1] if count_padding else inside
            means[i, j] = x[rows, columns].sum(axis=(0, 1)) / where[i, j][1]
    return means, where


def share_out(values, where, size):
    x = np.zeros((*size, values.shape[2]))
    for (i, j), (place, count) in where.items():
        x[place] += values[i, j] / count
    return x


def deconvolve(blocks, params, magnitude, layer, stats=None, method="deconvnet", norm_back="transpose"):
    """Images of all features, (maps, freq, time): forward, then unpool → activation → transposed convolution back down,
    with batch norms wherever the blocks have them."""
    x, trace = np.asarray(magnitude, np.float64)[..., None], []
    for number, block in enumerate(blocks[:layer], 1):
        kernel = np.asarray(params[f"conv{number}"]["kernel"], np.float64)
        bias = np.asarray(params[f"conv{number}"].get("bias", np.zeros(block.maps)), np.float64)
        factor, shift = np.ones(block.maps), np.zeros(block.maps)
        if block.norm != "none":
            gamma, beta = (np.asarray(params[f"norm{number}"][k], np.float64) for k in ("scale", "bias"))
            mean, var = (np.asarray(stats[f"norm{number}"][k], np.float64) for k in ("mean", "var"))
            factor = gamma / np.sqrt(var + block.epsilon)
            shift = beta - mean * factor
        size = x.shape[:2]
        x = convolve(x, kernel, bias, block.padding, block.conv_stride)
        x = x * factor + shift if block.norm == "before" else x
        slopes = SLOPES[block.activation](x, block.slope)
        x = RELUS[block.activation](x, block.slope)
        x = x * factor + shift if block.norm == "after" else x
        full = x.shape[:2]
        if block.pooling == "max":
            x, where = pool(x, block.pool, block.stride, block.pool_padding)
        else:
            x, where = average(x, block.pool, block.stride, block.pool_padding, block.count_padding)
        x = x * factor + shift if block.norm == "pooled" else x
        trace.append((block, kernel, factor if norm_back == "transpose" else 1 / factor, size, slopes, full, where))
    images = []
    for feature in range(x.shape[2]):
        signal = np.zeros_like(x)
        signal[..., feature] = x[..., feature]
        for block, kernel, factor, size, slopes, full, where in reversed(trace):
            signal = signal * factor if block.norm == "pooled" else signal
            signal = (unpool if block.pooling == "max" else share_out)(signal, where, full)
            signal = signal * factor if block.norm == "after" else signal
            if method != "gradient":
                rectifier = {"relu6": "relu"}.get(block.activation, block.activation)
                signal = RELUS[rectifier](signal, block.slope)
            if method != "deconvnet":
                signal = signal * slopes
            signal = signal * factor if block.norm == "before" else signal
            signal = convolve_back(signal, kernel, block.padding, size, block.conv_stride)
        images.append(signal[..., 0])
    return np.stack(images)


def window(name, n_fft):
    turn = 2 * np.pi * np.arange(n_fft) / n_fft
    second, third = {"hann": (0.5, 0), "hamming": (0.46, 0), "blackman": (0.5, 0.08)}[name]
    return 1 - second - third - second * np.cos(turn) + third * np.cos(2 * turn)


def frame(samples, centre, taper):
    """The spectrum of the samples around a centre, zeros beyond both ends, bin by bin."""
    n_fft = len(taper)
    around = np.arange(n_fft) + centre - n_fft // 2
    inside = (around >= 0) & (around < len(samples))
    piece = np.where(inside, samples[np.clip(around, 0, len(samples) - 1)], 0) * taper
    turns = np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) / n_fft
    return np.exp(-2j * np.pi * turns) @ piece


def auralise(image, samples, n_fft, hop, name, reading):
    """The sound of an image (freq, time) of a clip, whose last column's gain goes on to the frame after the clip."""
    taper, frames = window(name, n_fft), 1 + len(samples) // hop
    mirrored = np.concatenate([samples, samples[::-1]])
    spectra = [frame(samples, hop * t, taper) for t in range(frames)]
    changed = [image[:, t] * (s if reading == "mask" else np.exp(1j * np.angle(s))) for t, s in enumerate(spectra)]
    if len(samples) % hop:
        after, last, column = frame(mirrored, hop * frames, taper), spectra[-1], image[:, -1]
        changed.append(after * (column if reading == "mask" else column / np.abs(last)))
        if reading == "phase":
            grown = np.clip(np.linalg.norm(after) / np.linalg.norm(last), 1, 4)
            changed[-1] *= min(1, grown * np.linalg.norm(column) / np.linalg.norm(changed[-1]))
    total, norm = (np.zeros(hop * frames + 2 * n_fft) for _ in range(2))
    for t, spectrum in enumerate(changed):
        place = slice(hop * t + n_fft // 2, hop * t + n_fft // 2 + n_fft)  # n_fft samples before the clip
        total[place] += taper * np.fft.irfft(spectrum, n_fft)
        norm[place] += taper**2
    clip = slice(n_fft, n_fft + len(samples))
    return total[clip] / norm[clip]
