"""Spectrograms: a Fourier transform of our own, from samples to bands in one kernel."""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import cupy
import numpy as np

from tallow.backends.cuda.host import on_the_cpu
from tallow.backends.cuda.kernels import function
from tallow.ops.audio import check_spectrogram
from tallow.ops.dispatch import kernel
from tallow.ops.precision import rounded, widened
from tallow.tensor import Tensor

_THREADS = 256
_LONGEST = 4096  # frame that fits a block's shared memory twice
_LARGEST = 7  # factor of its length
_AT_ONCE = 2048  # samples that a block transforms, in frames
_LOGARITHMS = {None: 0, "ln": 1, "log10": 2, "db": 3}


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
    """See ``ops.mel_spectrogram``. Float64, and frames of a length with large factors, are left to the CPU."""
    check_spectrogram(samples, filters, n_fft, hop, center, log)
    count, bands = samples.shape[-1], len(filters.storage)
    clips = math.prod(samples.shape[:-1])
    radices = _factors(n_fft)
    if samples.storage.dtype == np.float64 or n_fft > _LONGEST or radices[-1] > _LARGEST or not clips * bands:
        options = {"center": center, "log": log, "floor": floor, "dynamic_range": dynamic_range}
        return on_the_cpu("mel_spectrogram")(samples, filters, n_fft, hop, **options)
    before = n_fft // 2 if center else 0
    frames = 1 + (count + 2 * before - n_fft) // hop
    x, weights = (cupy.ascontiguousarray(widened(each).storage, np.float32) for each in (samples, filters))
    out = cupy.empty((*samples.shape[:-1], bands, frames), np.float32)
    done = itertools.accumulate(radices, operator.mul, initial=1)
    size = sum((r - 1) * before_it + r for r, before_it in zip(radices, done, strict=False))
    tables, window = cupy.empty((size, 2), np.float32), cupy.empty(n_fft, np.float32)
    spans, highest = cupy.empty((bands, 2), np.int32), cupy.empty(clips, np.uint32)
    together = max(1, min(32, _AT_ONCE // n_fft))
    macros: dict[str, Any] = {"N_FFT": n_fft, "RADICES": ",".join(map(str, radices)), "FRAMES": together,
                              "LOG": _LOGARITHMS[log]}  # fmt: skip
    run = function("mel", "prepare", **macros)
    run((16,), (_THREADS,), (tables, window, spans, highest, weights, bands, clips))
    shared = 16 * together * (n_fft + n_fft // 16)
    run = function("mel", "mel", **macros)
    arguments = (out, x, weights, tables, window, spans, highest, count, bands, frames, hop, before, float(floor))
    run((clips * -(-frames // together),), (_THREADS,), arguments, shared)
    if dynamic_range is not None:
        run = function("mel", "raise", **macros)
        run((-(-out.size // _THREADS),), (_THREADS,), (out, highest, out.size, bands * frames, float(dynamic_range)))
    return rounded(Tensor(out, samples.device), samples)


def _factors(n: int) -> list[int]:
    """Numbers whose product is n: fours, and then primes."""
    found, rest = [], n
    for factor in (4, *range(2, n + 1)):
        while rest % factor == 0 and rest > 1:
            found.append(factor)
            rest //= factor
    return found or [1]
