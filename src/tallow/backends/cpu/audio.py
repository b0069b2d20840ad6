"""Spectrograms on the CPU: NumPy's Fourier transform between passes that stay in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from tallow import _cpu
from tallow.backends.cpu.packing import PackedMatrix, pack
from tallow.ops.audio import check_spectrogram
from tallow.ops.dispatch import kernel
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]

_FRAMES = 128  # at once: their intermediate results stay in the cache


@kernel("mel_spectrogram", "cpu")
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
    """See ``ops.mel_spectrogram``.

    The filters are multiplied by Tallow's own kernel: NumPy's wakes threads that go on spinning after the product,
    and take the cores from the kernels that follow.
    """
    check_spectrogram(samples, filters, n_fft, hop, center, log)
    if samples.storage.dtype != np.float32 or filters.storage.dtype != np.float32:
        return NotImplemented
    packed = pack(filters.storage, "float32")
    clips = samples.storage.reshape(-1, samples.shape[-1])
    if not isinstance(packed, PackedMatrix) or not len(clips):
        return NotImplemented
    if center:
        clips = np.pad(clips, ((0, 0), (n_fft // 2, n_fft // 2)), mode="reflect")
    spectra = np.stack([_power(clip, packed, n_fft, hop) for clip in clips])  # (clips, frames, bands)
    if log is not None:
        _take_logarithm(spectra, log, floor)
    if dynamic_range is not None:
        np.maximum(spectra, spectra.max(axis=(1, 2), keepdims=True) - np.float32(dynamic_range), out=spectra)
    shape = (*samples.shape[:-1], *spectra.shape[1:])
    return Tensor(spectra.reshape(shape).swapaxes(-1, -2))


def _power(clip: Array, filters: PackedMatrix, n_fft: int, hop: int) -> Array:
    """(samples,) -> power in each band, (frames, bands)."""
    window = (0.5 - 0.5 * np.cos(np.arange(n_fft) * (2 * np.pi / n_fft))).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(clip, n_fft)[::hop]
    out = np.empty((len(frames), filters.shape[0]), np.float32)
    for begin in range(0, len(frames), _FRAMES):
        part = slice(begin, begin + _FRAMES)
        spectrum = np.fft.rfft(frames[part] * window)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        _cpu.linear(out[part], power, filters.native, None, 0, None)
    return out


def _take_logarithm(power: Array, log: str, floor: float) -> None:
    """Replace power by its logarithm."""
    np.maximum(power, np.float32(floor), out=power)
    (np.log if log == "ln" else np.log10)(power, out=power)
    if log == "db":
        power *= np.float32(10.0)
