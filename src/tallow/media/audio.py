"""Sound in: any file that FFmpeg decodes, or an array, as one channel of float32.

The channels are mixed by their plain mean, whatever they are (also the six of 5.1); of stereo in opposite phase one is
taken. Times are those of the container's clock: a gap between timestamps, or sound that begins late, is silence
(``clock.py``). A file is read through Python's own file object, so FFmpeg opens nothing by itself: a playlist that
points at other files or at the network does not get to them.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tallow.errors import MediaError
from tallow.media.container import AudioFile
from tallow.media.phase import StereoMix, opposite_phase
from tallow.media.prefetch import Prefetch
from tallow.media.resample import MonoResampler, Samples
from tallow.tensor import Tensor
from tallow.trace import logger

AudioSource = str | os.PathLike[str] | bytes | BinaryIO | npt.NDArray[Any] | Tensor

RATES = (1_000, 768_000)  # samples a second, lowest and highest
MAX_CHANNELS = 64
MAX_AMPLITUDE = 100.0  # full scale is 1; beyond this the samples are integers in disguise
MAX_SAMPLES = 2**30  # of `load_audio`: 4 GiB of float32, 18 hours at 16 kHz
AHEAD = 60  # seconds of audio that are decoded before they are asked for: two windows of Whisper


def load_audio(path: AudioSource, rate: int | None = None, *, audio_track: int | str | None = None) -> Tensor:
    """Decode a whole recording.

    Args:
        path: an audio or video file; or its bytes, an open binary file, or samples (see `AudioReader`).
        rate: samples a second to convert to; by default the recording's own (``AudioReader(path).rate`` tells it).
        audio_track: of a file with several sound tracks, see `AudioReader`.

    Returns:
        Samples of shape (n,), float32, full scale ±1: the mean of the channels.

    Raises:
        MediaError: when nothing in it can be decoded, or for more than 2**30 samples.
    """
    blocks: list[Samples] = []
    total = 0
    with AudioReader(path, rate, audio_track=audio_track) as reader:
        for block in reader:
            blocks.append(block)
            total += len(block)
            if total > MAX_SAMPLES:
                raise MediaError(
                    f"{reader.name}: more than {MAX_SAMPLES:,} samples at {reader.rate:,} Hz; "
                    "read it block by block with tallow.media.AudioReader"
                )
    return Tensor(np.concatenate(blocks) if blocks else np.zeros(0, np.float32))


class AudioReader(Iterator[Samples]):
    """A recording as blocks of a second or less, decoded in a background thread as they are needed.

    It never holds more than a minute of sound, however long the recording is. Close it when stopping early, or use it
    in a ``with`` statement; reading to the end closes it too. Not for use by several threads at once.

    Args:
        source: a path; the bytes of a file; a binary file object (with ``seek``, or without, as far as the format
            allows); or samples, as a NumPy array, a Tensor or whatever has ``__array__``: shape (n,) or
            (channels, n), floating (full scale ±1), or int16, int32 or uint8 (scaled to ±1).
        rate: samples a second to deliver; by default the recording's own.
        sampling_rate: the rate of samples that were passed as an array; by default ``rate``. Files tell theirs.
        audio_track: which of a file's sound tracks: its number, from 0 (FFmpeg's ``0:a:0``), or the code of its
            language (``"de"``, ``"deu"`` and ``"ger"`` are the same); by default the one that FFmpeg takes for the
            best.

    Attributes:
        rate: samples a second of the blocks.
        duration: seconds of audio as the file declares them, which may be an estimate; None when it does not say.
        name: what messages call the recording.

    Raises:
        MediaError: when the source is missing, is no audio, has no audio track, or holds samples that are not finite.
            While reading it is also raised for a file whose damage lets nothing through; where at least some of it
            decodes, that much is delivered, with a warning on the logger ``tallow``.
    """

    def __init__(
        self,
        source: AudioSource,
        rate: int | None = None,
        *,
        sampling_rate: int | None = None,
        audio_track: int | str | None = None,
    ) -> None:
        for value in (rate, sampling_rate):
            if value is not None and not RATES[0] <= value <= RATES[1]:
                raise MediaError(f"a sampling rate of {value} Hz; expected {RATES[0]:,} to {RATES[1]:,}")
        self._prefetch: Prefetch[Samples] | None = None
        self._blocks: Iterator[Samples]
        if isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(source, "read"):
            if sampling_rate is not None:
                raise MediaError("sampling_rate is for arrays; a file says its own")
            file = AudioFile(source, audio_track)
            self.name, self.duration = file.name, file.duration
            self.rate = int(rate) if rate is not None else file.rate
            self._blocks = self._prefetch = Prefetch(_checked(file.blocks(self.rate), file.name), AHEAD)
        else:
            if audio_track is not None:
                raise MediaError("audio_track is for files; of an array pass the samples wanted")
            samples = _as_channels(source)
            native = sampling_rate or rate
            if native is None:
                raise MediaError("samples without a rate; say sampling_rate=, in samples a second")
            self.name, self.duration = "array", samples.shape[1] / native
            self.rate = int(rate) if rate is not None else native
            mix = StereoMix()
            for block in _checked(_slices(samples, native, mix), self.name):
                del block  # an array is looked through first: a fault far behind is told at once
            if mix.cancelled:
                logger.warning("%s: %s", self.name, opposite_phase(mix.cancelled / native))
            self._blocks = _converted(_slices(samples, native, mix), native, self.rate)

    def __iter__(self) -> AudioReader:
        return self

    def __next__(self) -> Samples:
        return next(self._blocks)

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop decoding and close the file; harmless when already closed."""
        if self._prefetch is not None:
            self._prefetch.close()
        self._blocks = iter(())


def _checked(blocks: Iterator[Samples], name: str) -> Generator[Samples, None, None]:
    """The blocks as they are; MediaError at the first sample that no sound can have."""
    for second, block in enumerate(blocks):
        peak = float(np.abs(block).max(initial=0.0))
        if not peak <= MAX_AMPLITUDE:  # also when it is NaN
            found = f"samples up to {peak:g}" if np.isfinite(peak) else "samples that are not finite (NaN or infinity)"
            advice = "scale them to ±1" if np.isfinite(peak) else "replace them, for example by 0"
            raise MediaError(f"{name}: {found} near second {second}; {advice}")
        yield block


def _as_channels(source: Any) -> npt.NDArray[Any]:
    """An array of samples as (channels, n), its dtype unchanged; MediaError when it is none."""
    array = source.numpy() if isinstance(source, Tensor) else np.asarray(source)
    if array.dtype.kind != "f" and array.dtype.name not in _INTEGER_SCALES and array.dtype.name != "bfloat16":
        accepted = "floating, " + ", ".join(_INTEGER_SCALES)
        raise MediaError(f"samples of dtype {array.dtype} ({type(source).__name__}); expected {accepted}, or a path")
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= array.shape[0] <= MAX_CHANNELS):
        hint = "; transpose it" if array.ndim == 2 and array.shape[1] <= MAX_CHANNELS < array.shape[0] else ""
        raise MediaError(
            f"samples of shape {array.shape}; expected (n,) or (channels, n) with 1 to {MAX_CHANNELS} channels{hint}"
        )
    return array[None] if array.ndim == 1 else array


# dtype name -> (its silence, its full scale)
_INTEGER_SCALES = {"int16": (0, 2**15), "int32": (0, 2**31), "uint8": (128, 2**7)}


def _slices(samples: npt.NDArray[Any], rate: int, mix: StereoMix) -> Iterator[Samples]:
    """(channels, n) of any dtype, a second at a time, mixed to one channel of float32."""
    silence, full_scale = _INTEGER_SCALES.get(samples.dtype.name, (0, 1))
    for start in range(0, samples.shape[1], rate):
        second = samples[:, start : start + rate]
        if second.dtype != np.float32 or len(second) > 1:
            wide = second.astype(np.float64)
            mean = ((wide.mean(axis=0, keepdims=True) - silence) / full_scale).astype(np.float32)
            left = ((wide[0] - silence) / full_scale).astype(np.float32)
            second = mix(mean[0], left)[None] if len(wide) == 2 else mean
        yield np.ascontiguousarray(second[0])


def _converted(blocks: Iterator[Samples], native: int, rate: int) -> Iterator[Samples]:
    """Blocks of one rate at another."""
    if native == rate:
        yield from blocks
        return
    from av.audio.frame import AudioFrame

    resampler = MonoResampler(rate, block=rate)
    for block in blocks:
        frame = AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
        frame.sample_rate = native
        yield from resampler.push(frame)
    yield from resampler.flush()
