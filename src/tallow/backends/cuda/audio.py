"""Spectrograms. The Fourier transform of a frame is a product with a matrix: no library for it is needed, and the card
does it in no time."""

from __future__ import annotations

import functools
from typing import Any

import cupy
import numpy as np

from tallow.ops.arithmetic import maximum
from tallow.ops.audio import LOGARITHMS, check_spectrogram
from tallow.ops.dispatch import kernel
from tallow.ops.precision import rounded, widened
from tallow.tensor import Tensor


@kernel("mel_spectrogram", "cuda")
def mel_spectrogram(
    samples: Tensor,
    filters: Tensor,
    n_fft: int,
    hop: int,
    *,
    center: bool = True,
    log: str | None = None,
    floor: float = 1e-10,
    dynamic_range: float | None = None,
) -> Any:
    """See ``ops.mel_spectrogram``."""
    check_spectrogram(samples, filters, n_fft, hop, center, log)
    x = widened(samples).storage
    if center:
        half = n_fft // 2
        x = cupy.concatenate([x[..., half:0:-1], x, x[..., -2 : -half - 2 : -1]], axis=-1)
    frames = cupy.lib.stride_tricks.as_strided(
        x, (*x.shape[:-1], 1 + (x.shape[-1] - n_fft) // hop, n_fft), (*x.strides[:-1], hop * x.itemsize, x.itemsize)
    )
    spectrum = cupy.matmul(frames, _transform(n_fft, x.dtype.name, samples.device.index))  # real parts, then imaginary
    bins = n_fft // 2 + 1
    power = spectrum[..., :bins] ** 2 + spectrum[..., bins:] ** 2
    y = Tensor(cupy.matmul(power, filters.storage.astype(x.dtype).T), samples.device).mT  # (…, bands, frames)
    y = y if log is None else LOGARITHMS[log](maximum(y, floor))
    if dynamic_range is not None:
        y = maximum(y, y.max(axis=(-2, -1), keepdims=True) - dynamic_range)
    return rounded(y, samples)


@functools.lru_cache(maxsize=8)
def _transform(n: int, dtype: str, device: int) -> Any:
    """The matrix (n, 2 · bins) of a windowed Fourier transform: cosines, then sines."""
    at, bins = np.arange(n), np.arange(n // 2 + 1)
    window = 0.5 - 0.5 * np.cos(at * (2 * np.pi / n))
    angles = (at[:, None] * bins % n) * (2 * np.pi / n)
    matrix = np.concatenate([np.cos(angles), -np.sin(angles)], axis=1) * window[:, None]
    with cupy.cuda.Device(device):
        return cupy.asarray(matrix.astype(dtype))
