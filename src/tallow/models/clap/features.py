"""What CLAP hears: log-mel spectrograms of clips of ten seconds, from recordings of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tallow.errors import ArgumentError
from tallow.media.mel import mel_filters
from tallow.models.clap.config import FeatureConfig
from tallow.ops.audio import mel_spectrogram
from tallow.tensor import Tensor

Array = np.ndarray[Any, Any]

_SILENCE = 1e-10  # power below which there is nothing to hear: -100 dB


class Clip(NamedTuple):
    """What the sound encoder is shown of one clip.

    Attributes:
        mel: (channels, frames, bands) float32, in decibels: one channel; with feature fusion four, a summary of the
            whole recording and three crops of it.
        is_longer: whether the recording was longer than a clip, so that the four channels differ.
    """

    mel: Array
    is_longer: bool


class Window(NamedTuple):
    """A stretch of a recording as long as a clip, or all of a shorter one.

    Attributes:
        start: its first sample's number.
        samples: (n,) float32.
        fresh: how many of the samples no window before it had.
    """

    start: int
    samples: Array
    fresh: int


class ClapFeatures:
    """Turns samples into spectrograms, as the model's authors did.

    Args:
        config: what ``preprocessor_config.json`` says.

    Source: ``ClapFeatureExtractor`` of Transformers, which this equals for the same places of crops.
    """

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        kind = ("htk", None) if config.truncation == "fusion" else ("slaney", "slaney")
        filters = mel_filters(
            config.sampling_rate, config.fft_window_size, config.feature_size,
            low=config.frequency_min, high=config.frequency_max, scale=kind[0], norm=kind[1],
        )  # fmt: skip
        # In float64: beside a loud tone, the rounding of a float32 transform drowns what is below -60 dB.
        self._filters = filters.astype("float64")

    def __call__(self, samples: Array, offsets: Sequence[int] | None = None) -> Clip:
        """A recording as one clip.

        Args:
            samples: (n,) floating point, at the config's rate; at least one.
            offsets: where crops of a recording that is too long begin: with ``"rand_trunc"`` one number of a sample,
                with ``"fusion"`` three numbers of frames. None takes what ``offsets`` gives.

        Raises:
            ArgumentError: if there are no samples, or a crop would begin outside the recording.
        """
        config, n = self.config, len(samples)
        if n == 0:
            raise ArgumentError("a recording without samples has no features")
        if n <= config.clip:
            mel = self.mel(self.padded(samples))
            return Clip(self._channels(mel), False)
        if offsets is None:
            offsets = self.offsets(n)
        if config.truncation == "rand_trunc":
            (start,) = self._checked(offsets, [n - config.clip])
            return Clip(self.mel(samples[start : start + config.clip])[None], True)
        mel = self.mel(samples)
        if len(mel) == config.frames:  # longer, but by less than a frame
            return Clip(self._channels(mel), False)
        crops = [mel[at : at + config.frames] for at in self._checked(offsets, [len(mel) - config.frames] * 3)]
        return Clip(np.stack([_shrunk(mel, config.frames), *crops]), True)

    def offsets(self, n: int, generator: np.random.Generator | None = None) -> list[int]:
        """Where the crops of a recording of ``n`` samples begin, as ``__call__`` takes it.

        Args:
            n: samples; more than a clip has.
            generator: draws them, one from each third of the recording with ``"fusion"``; None takes the middles.
        """
        config = self.config
        if config.truncation == "rand_trunc":
            places = [np.arange(n - config.clip + 1)]
        else:
            thirds = np.array_split(np.arange(n // config.hop_length + 2 - config.frames), 3)
            places = [third if len(third) else np.zeros(1, int) for third in thirds]
        return [int(p[len(p) // 2] if generator is None else generator.choice(p)) for p in places]

    def padded(self, samples: Array) -> Array:
        """As many samples as a clip has, of a recording that has fewer."""
        room = self.config.clip - len(samples)
        if self.config.padding == "repeat":
            return np.resize(samples, self.config.clip)
        if self.config.padding == "repeatpad":
            samples = np.tile(samples, self.config.clip // len(samples))
            room = self.config.clip - len(samples)
        return np.concatenate([samples, np.zeros(room, samples.dtype)])

    def mel(self, samples: Array) -> Array:
        """The log-mel spectrogram: (n,) -> (frames, bands) float32, in decibels."""
        size, hop = self.config.fft_window_size, self.config.hop_length
        wide = Tensor(samples.astype(np.float64))
        levels = mel_spectrogram(wide, self._filters, size, hop, log="db", floor=_SILENCE)
        return np.ascontiguousarray(levels.numpy().T, np.float32)

    def spectrograms(self, clips: Tensor) -> Tensor:
        """The same for clips (b, samples) as long as the model's, where they lie: (b, 1, frames, bands) float32."""
        size, hop = self.config.fft_window_size, self.config.hop_length
        filters = self._filters.to(clips.device)
        levels = mel_spectrogram(clips.astype("float64"), filters, size, hop, log="db", floor=_SILENCE)
        return levels.mT.astype("float32").unsqueeze(1)

    def windows(self, blocks: Iterable[Array]) -> Iterator[Window]:
        """A recording of any length as clips, one after the other; the last ends with the recording.

        Args:
            blocks: the samples, in pieces of any length. No more than two clips are held at a time.
        """
        size, start, ended = self.config.clip, 0, 0  # `ended`: where the last window did
        held = np.zeros(0, np.float32)  # samples from `start` on
        for block in blocks:
            held = np.concatenate([held, block])
            while start + len(held) - ended > size:  # there is more behind the next window
                held, start = held[ended - start :], ended
                yield Window(start, held[:size], size)
                ended += size
        fresh = start + len(held) - ended
        if fresh > 0:
            yield Window(start + max(0, len(held) - size), held[-size:], fresh)

    def _channels(self, mel: Array) -> Array:
        """The same in every channel, for a recording that is no longer than a clip."""
        count = 4 if self.config.truncation == "fusion" else 1
        return np.broadcast_to(mel, (count, *mel.shape))

    def _checked(self, offsets: Sequence[int], last: list[int]) -> Sequence[int]:
        if len(offsets) != len(last) or not all(0 <= at <= end for at, end in zip(offsets, last, strict=True)):
            raise ArgumentError(f"crops at {list(offsets)}; expected {len(last)} from 0 to {last[0]}")
        return offsets


def _shrunk(mel: Array, frames: int) -> Array:
    """A spectrogram (n, bands) with fewer frames, by linear interpolation.

    Positions are computed in float32, as PyTorch does, so that the same recording gives the same features.
    """
    at = (np.arange(frames, dtype=np.float32) + np.float32(0.5)) * (np.float32(len(mel)) / np.float32(frames))
    at = np.maximum(at - np.float32(0.5), np.float32(0))
    first = np.minimum(at.astype(np.int64), len(mel) - 1)
    part = (at - first.astype(np.float32))[:, None]
    result: Array = mel[first] * (1 - part) + mel[np.minimum(first + 1, len(mel) - 1)] * part
    return result
