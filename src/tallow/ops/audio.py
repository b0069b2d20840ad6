"""Spectrograms."""

from __future__ import annotations

import math
from collections.abc import Callable

from tallow import dtypes
from tallow.errors import ArgumentError, ShapeError
from tallow.ops.arithmetic import imag, maximum, real
from tallow.ops.creation import arange
from tallow.ops.dispatch import operation
from tallow.ops.functions import cos, log, log10
from tallow.ops.indexing import take
from tallow.ops.manipulation import concat, flip
from tallow.ops.operands import module_of
from tallow.ops.precision import rounded, widened
from tallow.tensor import Tensor

LOGARITHMS: dict[str, Callable[[Tensor], Tensor]] = {"ln": log, "log10": log10, "db": lambda y: log10(y) * 10.0}


@operation
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
) -> Tensor:
    """How much power each band of frequencies has over time.

    Every ``hop`` samples a frame of ``n_fft`` samples is weighted with a periodic Hann window and Fourier-transformed;
    its squared magnitudes are summed by the filters.

    Args:
        samples: (…, n) floating point.
        filters: (bands, n_fft // 2 + 1), such as ``media.mel_filters`` makes.
        n_fft: samples in a frame.
        hop: samples from one frame to the next.
        center: frame t has its centre at sample t · hop, the samples being reflected at both ends; otherwise it
            begins there, and no frame reaches beyond the end.
        log: None for power; ``"ln"``, ``"log10"``, or ``"db"`` for 10 · log10.
        floor: least power that enters the logarithm.
        dynamic_range: raise what lies further than this below the maximum of the (bands, frames) to that level, in
            units of the result.

    Returns:
        (…, bands, frames), the dtype of samples; frames is 1 + n // hop when centred, else 1 + (n − n_fft) // hop.

    Raises:
        ShapeError: if the filters do not fit ``n_fft``, or there are too few samples for one frame.
        ArgumentError: for another ``log``, or ``n_fft`` or ``hop`` below 1.

    Source: the front ends of Whisper (Radford et al. 2022, section 2.2) and CLAP, and ``librosa.feature``.

    Examples:
        >>> samples = tl.sin(tl.arange(16000, dtype="float32") * 0.3)
        >>> filters = tl.media.mel_filters(rate=16000, n_fft=400, bands=80)
        >>> tl.ops.mel_spectrogram(samples, filters, n_fft=400, hop=160, log="log10").shape
        (80, 101)
    """
    check_spectrogram(samples, filters, n_fft, hop, center, log)
    x = widened(samples)
    if center:
        half = n_fft // 2
        left, right = flip(x[..., 1 : half + 1], axis=-1), flip(x[..., -half - 1 : -1], axis=-1)
        x = concat([left, x, right], axis=-1)
    count = 1 + (x.shape[-1] - n_fft) // hop
    starts = (arange(count, device=x.device) * hop).unsqueeze(1)
    frames = take(x, starts + arange(n_fft, device=x.device), axis=-1)  # (…, frames, n_fft)
    window = 0.5 - 0.5 * cos(arange(n_fft, dtype=dtypes.float64, device=x.device) * (2 * math.pi / n_fft))
    weighted = (frames * window.astype(x.dtype)).storage
    spectrum = Tensor(module_of(weighted).fft.rfft(weighted), x.device)  # (…, frames, n_fft // 2 + 1)
    power = real(spectrum).sqr() + imag(spectrum).sqr()
    y = (power @ filters.astype(x.dtype).mT).mT  # (…, bands, frames)
    y = y if log is None else LOGARITHMS[log](maximum(y, floor))
    if dynamic_range is not None:
        y = maximum(y, y.max(axis=(-2, -1), keepdims=True) - dynamic_range)
    return rounded(y, samples)


def check_spectrogram(samples: Tensor, filters: Tensor, n_fft: int, hop: int, center: bool, log: str | None) -> None:
    """Raise what ``mel_spectrogram`` says of its operands."""
    if n_fft < 1 or hop < 1 or not (log is None or log in LOGARITHMS):
        logs = ", ".join(map(repr, LOGARITHMS))
        raise ArgumentError(
            f"mel_spectrogram: n_fft {n_fft}, hop {hop}, log {log!r}; expected 1 or more, {logs} or None"
        )
    bins = n_fft // 2 + 1
    if len(filters.shape) != 2 or filters.shape[1] != bins:
        raise ShapeError(f"mel_spectrogram: filters {filters.shape}; expected (bands, {bins}) for n_fft {n_fft}")
    least = bins if center else n_fft
    if len(samples.shape) < 1 or samples.shape[-1] < least:
        raise ShapeError(f"mel_spectrogram: samples {samples.shape}; expected (…, n), n at least {least} for one frame")
