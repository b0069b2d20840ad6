"""Mel filters, and Whisper's view of a recording: log-mel windows of 30 seconds."""

from __future__ import annotations

import functools
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from tallow.errors import ArgumentError
from tallow.media.audio import AudioReader
from tallow.media.resample import Samples
from tallow.ops.audio import mel_spectrogram
from tallow.tensor import Tensor

RATE = 16_000  # Whisper's: samples a second
N_FFT = 400
HOP = 160  # 10 ms
WINDOW = 3_000  # frames: 30 s

_MIN = 1e-10  # power below which everything is silence
_DECADES = 8.0  # what lies further below a window's maximum is silence too


@functools.cache
def mel_filters(
    rate: int,
    n_fft: int,
    bands: int,
    *,
    low: float = 0.0,
    high: float | None = None,
    scale: str = "slaney",
    norm: str | None = "slaney",
) -> Tensor:
    """Overlapping triangles, equally spaced in pitch, that turn a power spectrum into mel bands.

    Args:
        rate: samples a second.
        n_fft: samples in a frame.
        bands: how many triangles.
        low: lowest frequency, in Hz.
        high: highest frequency, in Hz; by default half the rate.
        scale: what equal steps in pitch are: ``"slaney"`` (linear to 1 kHz, then logarithmic) or ``"htk"``.
        norm: ``"slaney"`` gives every triangle the same area, None the same height of 1.

    Returns:
        (bands, n_fft // 2 + 1), float32. The same tensor for the same arguments: not to be written to.

    Raises:
        ArgumentError: for another scale or norm, or bounds out of order.

    Source: Slaney 1998, Auditory Toolbox; Young et al., The HTK Book.
    """
    high = rate / 2 if high is None else high
    if scale not in _SCALES or norm not in ("slaney", None) or bands < 1 or not 0 <= low < high:
        raise ArgumentError(
            f"mel_filters: {bands} bands from {low} to {high} Hz, scale {scale!r}, norm {norm!r}; expected 1 or more "
            f"bands, bounds in order, scale {' or '.join(map(repr, _SCALES))}, norm 'slaney' or None"
        )
    to_mel, to_hertz = _SCALES[scale]
    corners = to_hertz(np.linspace(to_mel(np.array(low)), to_mel(np.array(high)), bands + 2))
    lower, centre, upper = corners[:-2, None], corners[1:-1, None], corners[2:, None]  # each (bands, 1)
    frequencies = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    rising, falling = (frequencies - lower) / (centre - lower), (upper - frequencies) / (upper - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "slaney":
        filters *= 2.0 / (upper - lower)
    return Tensor(filters.astype(np.float32))


class LogMelWindows:
    """A recording as the windows that Whisper's encoder takes, made on the way through it.

    The values are log10 of the mel power, raised to at least 8 below the maximum of the window, then (x + 4) / 4.
    Frames at the edges of a window see the samples beyond the edge; before the recording they see its reflection,
    behind it silence. Only the samples that a window needs are held.

    Args:
        reader: the recording at 16 kHz.
        bands: 80, or 128 for the large-v3 models.

    Source: Radford et al. 2022, section 2.2, and OpenAI's ``audio.py``.
    """

    def __init__(self, reader: AudioReader, bands: int = 80) -> None:
        if reader.rate != RATE:
            raise ArgumentError(f"LogMelWindows: a reader at {reader.rate:,} Hz; open it with rate={RATE}")
        self._reader = reader
        self._filters = mel_filters(RATE, N_FFT, bands)
        self._blocks: deque[tuple[int, Samples]] = deque()  # (position of the first sample, samples)
        self._total = 0  # samples read
        self._ended = False

    @property
    def duration(self) -> float | None:
        """Seconds of sound: exact once the end has been read, before that what the file declares, or None."""
        return self._total / RATE if self._ended else self._reader.duration

    def window(self, start: int) -> tuple[npt.NDArray[np.float32], int]:
        """The window that begins at a frame.

        Args:
            start: in frames of 10 ms; never less than in the call before.

        Returns:
            (bands, 3000) float32, the caller's own, and how many of its frames hold sound, from the first: 3000, fewer
            at the end of the recording, 0 beyond it.

        Raises:
            ArgumentError: when ``start`` goes back.
            MediaError: from the reader.
        """
        first = start * HOP - N_FFT // 2
        if start < 0 or (self._blocks and self._blocks[0][0] > max(first, 0)):
            raise ArgumentError(f"LogMelWindows: a window at frame {start} lies before one already made; open it anew")
        self._read(first, first + (WINDOW - 1) * HOP + N_FFT)
        frames = min(WINDOW, max(0, self._total // HOP - start))
        hearing = min(WINDOW, max(0, -(-(self._total - first) // HOP)))  # frames that any sound reaches
        features = np.full((self._filters.shape[0], WINDOW), np.log10(_MIN), dtype=np.float32)
        if hearing:
            samples = Tensor(self._gather(first, (hearing - 1) * HOP + N_FFT))
            features[:, :hearing] = mel_spectrogram(
                samples, self._filters, N_FFT, HOP, center=False, log="log10", floor=_MIN
            ).numpy()
        np.maximum(features, features.max() - np.float32(_DECADES), out=features)
        features += 4.0
        features /= 4.0
        return features, frames

    def close(self) -> None:
        """Stop reading the recording."""
        self._reader.close()

    def _read(self, first: int, end: int) -> None:
        """Have what there is of the samples from ``first`` to ``end``, and forget what lies before them."""
        while not self._ended and self._total < end:
            block = next(self._reader, None)
            if block is None:
                self._ended = True
                break
            self._blocks.append((self._total, block))
            self._total += len(block)
            self._forget(first)
        self._forget(first)

    def _forget(self, first: int) -> None:
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= first:
            self._blocks.popleft()

    def _gather(self, first: int, count: int) -> Samples:
        """``count`` samples from ``first`` on, which may lie before the recording; silence behind it."""
        samples = np.zeros(count, np.float32)
        for position, block in self._blocks:
            begin, stop = max(position, first), min(position + len(block), first + count)
            if begin < stop:
                samples[begin - first : stop - first] = block[begin - position : stop - position]
        if first < 0:  # at most half a frame: the first window's reflection
            samples[:-first] = samples[-2 * first : -first : -1]
        return samples


def _slaney_to_mel(hertz: npt.NDArray[Any]) -> npt.NDArray[Any]:
    logarithmic = 15.0 + np.log(np.maximum(hertz, 1e-9) / 1000.0) * (27.0 / np.log(6.4))
    return np.where(hertz < 1000.0, hertz * (3.0 / 200.0), logarithmic)


def _slaney_to_hertz(mel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.where(mel < 15.0, mel * (200.0 / 3.0), 1000.0 * np.exp((mel - 15.0) * (np.log(6.4) / 27.0)))


def _htk_to_mel(hertz: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return 2595.0 * np.log10(1.0 + hertz / 700.0)


def _htk_to_hertz(mel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


_SCALES = {"slaney": (_slaney_to_mel, _slaney_to_hertz), "htk": (_htk_to_mel, _htk_to_hertz)}
