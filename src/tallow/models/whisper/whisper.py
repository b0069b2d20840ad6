"""Whisper as a caller knows it: load, transcribe, detect the language."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from tallow.errors import ArgumentError, WeightsError
from tallow.models.whisper.config import GenerationConfig, WhisperConfig
from tallow.models.whisper.decoding import log_softmax
from tallow.models.whisper.model import Decoder, Encoder
from tallow.models.whisper.options import TEMPERATURES, Options
from tallow.models.whisper.rules import Rules
from tallow.models.whisper.session import DecoderSession, Sound
from tallow.models.whisper.tokens import WhisperTokens
from tallow.models.whisper.transcribe import Progress, Transcription
from tallow.models.whisper.words import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS
from tallow.nn import Module
from tallow.runtime.encoding import encode
from tallow.runtime.resident import use
from tallow.tensor import Tensor
from tallow.text.tokenizer import Tokenizer
from tallow.text.transcript import Transcript
from tallow.trace import span
from tallow.weights.var_builder import VarBuilder

if TYPE_CHECKING:
    from tallow.media.audio import AudioReader, AudioSource
    from tallow.media.mel import LogMelWindows
    from tallow.weights.checkpoint import Checkpoint

    Recording = AudioSource | AudioReader

Array = np.ndarray[Any, Any]


class Whisper(Module):
    """Speech to text: ``tl.load("openai/whisper-base").transcribe("meeting.mp4").text``.

    Args:
        config: sizes.
        vb: weights ``model.encoder`` and ``model.decoder``, under Hugging Face's names.
        tokenizer: the vocabulary; None for a model that only encodes and gives logits.
        generation: what ``generation_config.json`` says.
    """

    Config = WhisperConfig

    def __init__(
        self,
        config: WhisperConfig,
        vb: VarBuilder,
        tokenizer: Tokenizer | None = None,
        generation: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.generation = GenerationConfig.from_dict(generation or {}, config)
        self._tokens = None if tokenizer is None else self._special_tokens(tokenizer)
        self.encoder = Encoder(config, vb.pp("model.encoder"))
        self.decoder = Decoder(config, vb.pp("model.decoder"))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, vb: VarBuilder) -> Whisper:
        """Build the model from an opened checkpoint."""
        config = WhisperConfig.from_dict(checkpoint.config)
        # Old checkpoints have the lists of tokens in config.json.
        generation = {**checkpoint.config, **checkpoint.generation_config}
        return cls(config, vb, Tokenizer.from_folder(checkpoint.folder), generation)

    @property
    def tokens(self) -> WhisperTokens:
        """The special tokens. Raises WeightsError for a model that was made without a tokenizer."""
        if self._tokens is None:
            raise WeightsError("this Whisper was made without a tokenizer, so it can neither read nor write text")
        return self._tokens

    def _special_tokens(self, tokenizer: Tokenizer) -> WhisperTokens:
        tokens = WhisperTokens(tokenizer, multilingual=self.generation.multilingual)
        last = tokens.timestamp_begin + self.config.max_source_positions
        if last >= self.config.vocab_size:
            raise WeightsError(f"the tokenizer goes to {last}, but the model has {self.config.vocab_size} tokens")
        return tokens

    @overload
    def transcribe(self, audio: Recording, *, stream: Literal[True], **options: Any) -> Transcription: ...

    @overload
    def transcribe(self, audio: Recording, *, stream: Literal[False] = False, **options: Any) -> Transcript: ...

    def transcribe(  # type: ignore[misc]  # the overloads leave the settings to this signature
        self,
        audio: Recording,
        *,
        stream: bool = False,
        sampling_rate: int | None = None,
        language: str | None = None,
        task: str = "transcribe",
        beam_size: int = 5,
        best_of: int = 5,
        patience: float = 1.0,
        length_penalty: float | None = None,
        temperature: float | Sequence[float] = TEMPERATURES,
        compression_ratio_threshold: float | None = 2.4,
        logprob_threshold: float | None = -1.0,
        no_speech_threshold: float | None = 0.6,
        condition_on_previous_text: bool = True,
        initial_prompt: str | None = None,
        hotwords: str | None = None,
        suppress_tokens: Sequence[int] = (-1,),
        suppress_blank: bool = True,
        without_timestamps: bool = False,
        max_initial_timestamp: float | None = 1.0,
        word_timestamps: bool = False,
        prepend_punctuations: str = PREPEND_PUNCTUATIONS,
        append_punctuations: str = APPEND_PUNCTUATIONS,
        clip_timestamps: str | Sequence[float] = (),
        hallucination_silence_threshold: float | None = None,
        seed: int = 0,
        audio_track: int | str | None = None,
        progress: Progress | None = None,
    ) -> Transcript | Transcription:
        """Write down what is said in a recording of any length.

        The defaults are those of OpenAI's command: beam search, a decoding that fails is tried again by sampling, and
        each window is told what was said before it. Fastest is ``beam_size=1, temperature=0``.

        Args:
            audio: a file that FFmpeg decodes, its bytes, samples as an array, or an ``AudioReader`` at 16,000 Hz (see
                ``tallow.media.audio``), which is closed at the end.
            sampling_rate: of samples that are passed as an array, 16,000 if not given; a file says its own.
            stream: return the segments as they become ready instead of the whole transcript.
            language: spoken language, by code or English name; None detects it.
            task: ``"transcribe"``, or ``"translate"`` into English.
            beam_size: candidates that beam search keeps at temperature 0; 1 is greedy.
            best_of: samples at temperatures above 0, of which the likeliest counts.
            patience: beam search goes on until ``beam_size * patience`` candidates have ended.
            length_penalty: candidates' scores are divided by ((5 + length) / 6) to this power; None: by the length.
            temperature: one, or several to try in turn until a decoding is good.
            compression_ratio_threshold: a text that zlib compresses better than this repeats itself, and fails.
            logprob_threshold: a decoding whose mean log-probability lies below fails.
            no_speech_threshold: a window whose probability of no speech lies above, and that fails by
                ``logprob_threshold``, is silent.
            condition_on_previous_text: whether each window is told the text before it. Consistent names and
                punctuation, but an error may carry on.
            initial_prompt: text told to the first window, such as names and spellings.
            hotwords: words told to every window.
            suppress_tokens: ids never to be written; -1 stands for the model's own list of unspoken symbols.
            suppress_blank: whether a text may not begin with a blank or be empty.
            without_timestamps: write no timestamps; every window is then one segment, and words may be cut between.
            max_initial_timestamp: seconds; the first segment of a window may not begin later.
            word_timestamps: also time every word.
            prepend_punctuations: punctuation that belongs to the word after it.
            append_punctuations: punctuation that belongs to the word before it.
            clip_timestamps: seconds ``[start, end, start, end, …]`` of the stretches to transcribe, or
                ``"start,end,…"``; the last end may be left out.
            hallucination_silence_threshold: with ``word_timestamps``, leave out improbable text between silences
                longer than this, in seconds.
            seed: of the samples.
            audio_track: of a file with several sound tracks: the number, from 0, or the language's code of the one to
                transcribe; by default the one that FFmpeg takes for the best.
            progress: called with the seconds done, and the seconds there are if that is known.

        Returns:
            The transcript; with ``stream``, an iterator of its segments, which also has ``language``.

        Raises:
            MediaError: if there is no sound to be decoded.
            TallowError: for a setting, a language or a task that this model doesn't have.
        """
        options = Options(
            language=language, task=task, beam_size=beam_size, best_of=best_of, patience=patience,
            length_penalty=length_penalty, temperature=temperature, logprob_threshold=logprob_threshold,
            compression_ratio_threshold=compression_ratio_threshold, no_speech_threshold=no_speech_threshold,
            condition_on_previous_text=condition_on_previous_text, initial_prompt=initial_prompt, hotwords=hotwords,
            suppress_tokens=suppress_tokens, suppress_blank=suppress_blank, without_timestamps=without_timestamps,
            max_initial_timestamp=max_initial_timestamp, word_timestamps=word_timestamps,
            prepend_punctuations=prepend_punctuations, append_punctuations=append_punctuations,
            clip_timestamps=clip_timestamps, hallucination_silence_threshold=hallucination_silence_threshold, seed=seed,
        )  # fmt: skip
        with use(self):
            transcription = Transcription(self, self._windows(audio, sampling_rate, audio_track), options, progress)
            return transcription if stream else transcription.result()

    def detect_language(self, audio: Recording, *, sampling_rate: int | None = None) -> dict[str, float]:
        """How probable each language is in the first 30 s of a recording.

        Args:
            audio: as for ``transcribe``.
            sampling_rate: likewise.

        Returns:
            Probabilities by language code, the most probable first; they sum to 1. An English-only model knows one.
        """
        with use(self), contextlib.closing(self._windows(audio, sampling_rate)) as windows:
            mel, _ = windows.window(0)
            return self.language_probabilities(self.encode(mel))

    def _windows(
        self, audio: Recording, sampling_rate: int | None, audio_track: int | str | None = None
    ) -> LogMelWindows:
        from tallow.media.audio import AudioReader
        from tallow.media.mel import RATE, LogMelWindows

        if not isinstance(audio, AudioReader):
            audio = AudioReader(audio, RATE, sampling_rate=sampling_rate, audio_track=audio_track)
        elif audio_track is not None:
            raise ArgumentError("audio_track is for files; an AudioReader has chosen its own")
        return LogMelWindows(audio, self.config.num_mel_bins)

    def encode(self, mel: Array) -> Sound:
        """What the decoder needs of a window: the encoder's output, as keys and values of each of its layers.

        Args:
            mel: (mels, 3000) log-mel, float32.
        """
        with span("encode"):
            hidden = encode(self.encoder, Tensor(mel[None]).to(self.decoder.positions.device))
            return [layer.cross.project_kv(hidden) for layer in self.decoder.layers]

    def language_probabilities(self, sound: Sound) -> dict[str, float]:
        """How probable each language is in an encoded window, the most probable first."""
        tokens = self.tokens
        if not tokens.multilingual:
            return {"en": 1.0}
        logits = self.session(sound).start([tokens.start], [0])[0]
        probabilities = np.exp(log_softmax(logits[list(tokens.languages.values())])).tolist()
        return dict(sorted(zip(tokens.languages, probabilities, strict=True), key=lambda pair: -pair[1]))

    def session(self, sound: Sound, rows: int = 1) -> DecoderSession:
        """A decoder at work on an encoded window, with up to ``rows`` candidates."""
        return DecoderSession(self.decoder, sound, rows)

    def rules(self, options: Options) -> Rules:
        """What a decoding under these options may not write."""
        tokens, listed = self.tokens, self.generation.suppress_tokens
        suppress = {id for id in options.suppress_tokens if id >= 0} | tokens.markers
        unknown = [id for id in suppress if id >= self.config.vocab_size]
        if unknown:
            raise ArgumentError(f"suppress_tokens: no token {unknown[0]}; the model has {self.config.vocab_size}")
        if -1 in options.suppress_tokens:
            suppress.update(tokens.never_spoken() if listed is None else listed)
        first = self.generation.begin_suppress_tokens
        if first is None:
            first = (tokens.blank, tokens.end)
        return Rules(
            tokens,
            suppress,
            first if options.suppress_blank else (),
            timestamps=not options.without_timestamps,
            max_initial_timestamp=options.max_initial_timestamp,
        )
