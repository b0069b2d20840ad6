"""CLAP as a caller knows it: vectors for sounds and texts in one space, and labels for sounds."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tallow import ops
from tallow.errors import ArgumentError, MediaError, WeightsError
from tallow.media.prefetch import side_by_side
from tallow.models.clap.audio import AudioEncoder
from tallow.models.clap.config import ClapConfig, FeatureConfig
from tallow.models.clap.features import ClapFeatures, Clip
from tallow.models.clap.text import TextEncoder
from tallow.nn import Linear, Module
from tallow.runtime.encoding import encode, pipelined
from tallow.runtime.gpu import BatchUploader
from tallow.runtime.resident import use
from tallow.runtime.threads import get_num_threads
from tallow.tensor import Tensor
from tallow.text.tokenizer import Tokenizer
from tallow.trace import span
from tallow.weights.var_builder import VarBuilder

if TYPE_CHECKING:
    from tallow.media.audio import AudioReader, AudioSource
    from tallow.weights.checkpoint import Checkpoint

    Recording = AudioSource | AudioReader

Array = np.ndarray[Any, Any]
Heard = tuple[int, Clip | Array, int]
"""The number of a sound, a clip of it (or its samples), and how many samples that adds."""
logger = logging.getLogger("tallow")

LONG = ("mean", "windows", "crop")
_AT_ONCE = 8  # clips whose spectrograms a card makes at a time: in float64, that takes a quarter of a gigabyte
_AHEAD = 8  # clips of a sound that are ready before it is its turn


class Label(NamedTuple):
    """A label and how well it fits a sound, from 0 to 1: over all labels of a question, scores sum to 1."""

    label: str
    score: float


class Projection(Module):
    """From an encoder's space into the one that sounds and texts share.

    Args:
        dim: width of the encoder.
        config: of the whole model.
        vb: weights ``linear1`` and ``linear2``.
    """

    def __init__(self, dim: int, config: ClapConfig, vb: VarBuilder) -> None:
        self.linear1 = Linear(dim, config.projection_dim, vb.pp("linear1"))
        self.linear2 = Linear(config.projection_dim, config.projection_dim, vb.pp("linear2"))
        self.activation = config.projection_hidden_act

    def __call__(self, x: Tensor) -> Tensor:
        """(b, dim) -> (b, projection_dim), rows of length 1."""
        return ops.l2_normalize(self.linear2(self.linear1(x, activation=self.activation)))


class Clap(Module):
    """Sounds and texts in one space: ``tl.load("laion/clap-htsat-unfused").classify("rain.wav", ["rain", "a dog"])``.

    Args:
        config: sizes.
        vb: weights ``audio_model.audio_encoder``, ``text_model``, both projections and ``logit_scale_a``.
        features: how sound becomes spectrograms; None for a model that is only given spectrograms.
        tokenizer: the vocabulary; None for a model that is only given ids.
    """

    Config = ClapConfig

    def __init__(
        self,
        config: ClapConfig,
        vb: VarBuilder,
        features: FeatureConfig | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.config = config
        self._features = None if features is None else ClapFeatures(self._fitting(features))
        self._tokenizer = tokenizer
        self.audio_encoder = AudioEncoder(config.audio_config, vb.pp("audio_model.audio_encoder"))
        self.audio_projection = Projection(config.audio_config.hidden_size, config, vb.pp("audio_projection"))
        self.text_encoder = TextEncoder(config.text_config, vb.pp("text_model"))
        self.text_projection = Projection(config.text_config.hidden_size, config, vb.pp("text_projection"))
        self.logit_scale = vb.get((), "logit_scale_a")  # the logarithm of the factor

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, vb: VarBuilder) -> Clap:
        """Build the model from an opened checkpoint."""
        config = ClapConfig.from_dict(checkpoint.config)
        features = FeatureConfig.from_dict(*checkpoint.processor("feature_extractor"))
        return cls(config, vb, features, Tokenizer.from_folder(checkpoint.folder))

    @property
    def features(self) -> ClapFeatures:
        """How sound becomes spectrograms. Raises WeightsError for a model that was made without."""
        if self._features is None:
            raise WeightsError("this CLAP was made without settings for features, so it can hear no recording")
        return self._features

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary. Raises WeightsError for a model that was made without."""
        if self._tokenizer is None:
            raise WeightsError("this CLAP was made without a tokenizer, so it cannot read text")
        return self._tokenizer

    def embed_audio(
        self,
        sounds: Recording | Sequence[Recording],
        *,
        long: str = "mean",
        seed: int | None = None,
        sampling_rate: int | None = None,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Any:
        """Vectors for sounds.

        Args:
            sounds: one, or a list of them: files that FFmpeg decodes, their bytes, samples as arrays, or
                ``AudioReader`` objects at 48,000 Hz (see ``tallow.media.audio``), which are closed at the end.
            long: what becomes of a recording longer than a clip (10 s). ``"mean"``: clips are heard one after the
                other, the last ends with the recording, and their vectors are averaged, each weighted by the sound
                that it adds. ``"windows"``: their vectors one by one. ``"crop"``: as the model was trained, a clip
                out of it; a model with feature fusion hears a summary of the whole and three clips.
            seed: draws where those clips begin; None takes the middle, or the middles of three thirds.
            sampling_rate: of samples that are passed as arrays, 48,000 if not given; files say their own.
            batch_size: clips at once; None: 4 on the CPU, 32 on a GPU, for which threads decode several sounds at once.
            progress: called with the number of the sound that has been read.

        Returns:
            (sounds, dim) float32, rows of length 1; (dim,) for one sound. With ``"windows"`` a list of (clips, dim) for
            each sound, the clip of row i beginning at 10·i s (the last one earlier); (clips, dim) for one sound.

        Raises:
            MediaError: for a sound that cannot be read, or without samples.
            ArgumentError: for another ``long``, or a seed without ``"crop"``.
        """
        on_card = self.logit_scale.device.kind == "cuda"
        most = batch_size if batch_size is not None else 32 if on_card else 4
        if long not in LONG or most < 1 or (seed is not None and long != "crop"):
            raise ArgumentError(
                f"embed_audio: long={long!r}, seed={seed}, batch_size={batch_size}; expected long to be "
                f"{', '.join(LONG)}, a seed for 'crop' only, and at least 1 clip at once"
            )
        single = not isinstance(sounds, list | tuple)
        recordings: Any = [sounds] if single else sounds
        found: list[list[tuple[Array, int]]] = [[] for _ in recordings]  # of each sound: vectors, and samples they add
        works = (self._clips(i, sound, long, seed, sampling_rate) for i, sound in enumerate(recordings))
        bring = BatchUploader(self.logit_scale.device) if on_card else None
        with span("embed_audio", sounds=len(recordings)), use(self), ExitStack() as stack:
            readers: Iterator[Any] = works
            if on_card:
                readers = stack.enter_context(closing(side_by_side(works, get_num_threads(), _AHEAD)))
            batches = _batches(_all(readers, progress), most)
            for batch, vectors in pipelined(lambda batch: self._encode([clip for _, clip, _ in batch], bring), batches):
                for (sound, _, fresh), vector in zip(batch, vectors, strict=True):
                    found[sound].append((vector, fresh))
        if long == "windows":
            each = [Tensor(np.stack([vector for vector, _ in parts])) for parts in found]
            return each[0] if single else each
        rows = [np.average([v for v, _ in parts], axis=0, weights=[n for _, n in parts]) for parts in found]
        result = np.array(rows, np.float32).reshape(len(rows), self.config.projection_dim)
        norms = np.linalg.norm(result, axis=1, keepdims=True)
        result /= np.where(norms == 0, 1, norms).astype(np.float32)
        return Tensor(result[0] if single else result)

    def embed_text(self, texts: str | Sequence[str], *, truncate: bool = False, batch_size: int = 32) -> Tensor:
        """Vectors for texts.

        Args:
            texts: one, or several.
            truncate: whether a text of more tokens than the model reads (512) is cut at its end, with a warning on the
                logger ``tallow``, instead of being an error.
            batch_size: texts at once.

        Returns:
            (texts, dim) float32, rows of length 1; (dim,) for one text.

        Raises:
            ArgumentError: for a text that is too long.
            WeightsError: if the model was made without a tokenizer.
        """
        single = isinstance(texts, str)
        rows = [self._token_ids(text, truncate) for text in ([texts] if isinstance(texts, str) else texts)]
        out = np.empty((len(rows), self.config.projection_dim), np.float32)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))  # texts of like length side by side
        with use(self):
            for begin in range(0, len(order), batch_size):
                batch = order[begin : begin + batch_size]
                with span("embed_text", texts=len(batch)):
                    out[batch] = self.encode_ids([rows[i] for i in batch]).numpy()
        return Tensor(out[0] if single else out)

    def classify(
        self,
        audio: Recording | Sequence[Recording],
        labels: Sequence[str],
        *,
        template: str = "This is a sound of {}.",
        **options: Any,
    ) -> Any:
        """Which of some labels fits a sound.

        Args:
            audio: one sound, or a list of them, as for ``embed_audio``.
            labels: what there may be to hear, such as ``["rain", "a dog barking"]``.
            template: the sentence that a label is put into, at ``{}``; ``"{}"`` takes labels as they are.
            options: those of ``embed_audio``; ``long="windows"`` is not among them.

        Returns:
            A list of ``Label``, the best first; for a list of sounds, a list of such lists.

        Raises:
            ArgumentError: without labels, or for a template without ``{}``; and as ``embed_audio`` and ``embed_text``.
            MediaError: as ``embed_audio``.
        """
        if isinstance(labels, str) or not labels:
            raise ArgumentError(f"classify: labels must be a list of at least one text, found {labels!r}")
        if "{}" not in template or options.get("long") == "windows":
            raise ArgumentError(f"classify: the template {template!r} must hold {{}}, and long be 'mean' or 'crop'")
        with use(self):
            texts = self.embed_text([template.replace("{}", label) for label in labels])
            sounds = self.embed_audio(audio, **options)
            sounds = sounds.reshape(-1, 1, sounds.shape[-1])
            products = (sounds * texts).sum(-1)  # unlike a matrix product, the same for a sound whatever lies beside it
            scores = ops.softmax(products * self.logit_scale.exp().item()).numpy()
        ranked = [[Label(labels[i], float(row[i])) for i in np.argsort(-row, kind="stable")] for row in scores]
        return ranked if isinstance(audio, list | tuple) else ranked[0]

    def encode_clips(self, clips: Sequence[Clip]) -> Tensor:
        """Clips to rows of length 1: (clips, projection_dim)."""
        return self._encode(clips).to("cpu")

    def _encode(self, clips: Sequence[Any], bring: BatchUploader | None = None) -> Tensor:
        if bring is not None and isinstance(clips[0], np.ndarray):
            mels = [self.features.spectrograms(part) for part in bring(clips).split(_AT_ONCE)]
            mel = ops.concat(mels).to(self.logit_scale)
            return self.audio_projection(encode(self.audio_encoder, mel))
        longer = [i for i, clip in enumerate(clips) if clip.is_longer and self.config.audio_config.enable_fusion]
        channels = 4 if longer else 1
        shown = [clip.mel[:channels] for clip in clips]
        mel = (Tensor(np.stack(shown)) if bring is None else bring(shown)).to(self.logit_scale)
        heard = self.audio_encoder(mel, longer) if longer else encode(self.audio_encoder, mel)
        return self.audio_projection(heard)

    def encode_ids(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Token ids to rows of length 1: (texts, projection_dim)."""
        lengths = np.array([len(row) for row in rows])
        ids = np.full((len(rows), lengths.max()), self.config.text_config.pad_token_id)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row)] = row
        device = self.logit_scale.device
        return self.text_projection(self.text_encoder(Tensor(ids).to(device), Tensor(lengths).to(device))).to("cpu")

    def _clips(
        self, i: int, sound: Recording, long: str, seed: int | None, sampling_rate: int | None
    ) -> Generator[Heard, None, None]:
        """What to hear of a sound."""
        heard = False
        with self._open(sound, sampling_rate) as reader:
            if long == "crop":
                samples = np.concatenate([np.zeros(0, np.float32), *reader])
                generator = None if seed is None else np.random.default_rng((seed, i))
                if len(samples):
                    heard = True
                    too_long = len(samples) > self.features.config.clip
                    offsets = self.features.offsets(len(samples), generator) if too_long else None
                    yield i, self.features(samples, offsets), 1
            else:
                on_card = self.logit_scale.device.kind == "cuda"  # which makes spectrograms faster than threads
                show = self.features.padded if on_card else self.features
                for window in self.features.windows(reader):
                    heard = True
                    yield i, show(window.samples), window.fresh
        if not heard:
            raise MediaError(f"{reader.name}: no sound in it, not one sample at {reader.rate:,} Hz")

    def _open(self, sound: Recording, sampling_rate: int | None) -> AudioReader:
        from tallow.media.audio import AudioReader

        rate = self.features.config.sampling_rate
        if not isinstance(sound, AudioReader):
            return AudioReader(sound, rate, sampling_rate=None if _is_file(sound) else sampling_rate)
        if sound.rate != rate:
            raise ArgumentError(f"embed_audio: a reader at {sound.rate:,} Hz; open it with rate={rate}")
        return sound

    def _token_ids(self, text: str, truncate: bool) -> list[int]:
        if not isinstance(text, str):
            raise ArgumentError(f"embed_text: expected a text, found {type(text).__name__}")
        config = self.config.text_config
        ids, most = self.tokenizer.encode(text), config.context - 2
        if len(ids) > most:
            length = f"a text of {len(ids):,} tokens ({text[:40]!r}…)"
            if not truncate:
                raise ArgumentError(f"embed_text: {length}; the model reads {most}. Shorten it, or say truncate=True")
            logger.warning("embed_text: %s was cut to the %d that the model reads", length, most)
        return [config.bos_token_id, *ids[:most], config.eos_token_id]

    def _fitting(self, features: FeatureConfig) -> FeatureConfig:
        """The settings, if they fit the model; else WeightsError."""
        audio = self.config.audio_config
        most = audio.spec_size * (audio.spec_size // audio.num_mel_bins)
        if features.feature_size != audio.num_mel_bins or features.frames > most:
            raise WeightsError(
                f"the feature extractor makes {features.feature_size} bands and {features.frames:,} frames, the "
                f"model takes {audio.num_mel_bins} bands and at most {most:,} frames"
            )
        if (features.truncation == "fusion") != audio.enable_fusion:
            raise WeightsError(
                f"the feature extractor has truncation {features.truncation!r}, which does not fit a model with "
                f"enable_fusion {audio.enable_fusion}"
            )
        return features


def _all(sounds: Iterable[Iterable[Heard]], progress: Callable[[int], None] | None) -> Iterator[Heard]:
    """What to hear of sounds that follow each other."""
    for i, clips in enumerate(sounds):
        yield from clips
        if progress is not None:
            progress(i)


def _batches(clips: Iterator[Heard], most: int) -> Iterator[list[Heard]]:
    while batch := list(itertools.islice(clips, most)):
        yield batch


def _is_file(sound: Any) -> bool:
    return isinstance(sound, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(sound, "read")
