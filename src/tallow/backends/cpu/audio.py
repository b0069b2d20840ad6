"""Spectrograms on the CPU: NumPy's Fourier transform between passes that stay in the cache."""

from __future__ import annotations

from collections.abc import Callable
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

    The filters are not multiplied by NumPy's product of matrices: it wakes threads that go on spinning after it, and
    take the cores from the kernels that follow.
    """
    check_spectrogram(samples, filters, n_fft, hop, center, log)
    dtype = samples.storage.dtype
    if dtype not in (np.float32, np.float64) or filters.storage.dtype != dtype:
        return NotImplemented
    clips = samples.storage.reshape(-1, samples.shape[-1])
    if not len(clips):
        return NotImplemented
    multiply = _product(filters.storage) if dtype == np.float32 else _sparse_product(filters.storage)
    if center:
        clips = np.pad(clips, ((0, 0), (n_fft // 2, n_fft // 2)), mode="reflect")
    spectra = np.stack(
        [_power(clip, multiply, len(filters.storage), n_fft, hop) for clip in clips]
    )  # (clips, frames, bands)
    if log is not None:
        _take_logarithm(spectra, log, floor)
    if dynamic_range is not None:
        np.maximum(spectra, spectra.max(axis=(1, 2), keepdims=True) - dtype.type(dynamic_range), out=spectra)
    shape = (*samples.shape[:-1], *spectra.shape[1:])
    return Tensor(spectra.reshape(shape).swapaxes(-1, -2))


def _product(filters: Array) -> Callable[[Array, Array], object]:
    """What fills (frames, bands) with powers (frames, bins) in bands, in float32."""
    packed = pack(filters, "float32")
    assert isinstance(packed, PackedMatrix)  # only int8 may come in another form
    native = packed.native
    return lambda out, power: _cpu.linear(out, power, native, None, 0, None)


def _sparse_product(filters: Array) -> Callable[[Array, Array], object]:
    """The same in float64: band after band, of the few bins that each one has."""
    spans = [(found[0], found[-1] + 1) if len(found := np.flatnonzero(row)) else (0, 0) for row in filters]

    def fill(out: Array, power: Array) -> None:
        for band, (begin, end) in enumerate(spans):
            np.matmul(power[:, begin:end], filters[band, begin:end], out=out[:, band])

    return fill


def _power(clip: Array, multiply: Callable[[Array, Array], object], bands: int, n_fft: int, hop: int) -> Array:
    """(samples,) -> power in each band, (frames, bands)."""
    window = (0.5 - 0.5 * np.cos(np.arange(n_fft) * (2 * np.pi / n_fft))).astype(clip.dtype)
    frames = np.lib.stride_tricks.sliding_window_view(clip, n_fft)[::hop]
    out = np.empty((len(frames), bands), clip.dtype)
    for begin in range(0, len(frames), _FRAMES):
        part = slice(begin, begin + _FRAMES)
        spectrum = np.fft.rfft(frames[part] * window)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        multiply(out[part], power)
    return out


def _take_logarithm(power: Array, log: str, floor: float) -> None:
    """Replace power by its logarithm."""
    np.maximum(power, power.dtype.type(floor), out=power)
    (np.log if log == "ln" else np.log10)(power, out=power)
    if log == "db":
        power *= power.dtype.type(10.0)
