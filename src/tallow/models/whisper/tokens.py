"""Whisper's special tokens: what stands before the text, what marks time, and how ids fall into words."""

from __future__ import annotations

import string
from collections.abc import Sequence

from tallow.errors import ArgumentError, WeightsError
from tallow.models.whisper.languages import LANGUAGES, language_code
from tallow.text.tokenizer import Tokenizer

TASKS = ("transcribe", "translate")
SECONDS_PER_TIMESTAMP = 0.02
_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


class WhisperTokens:
    """The ids of Whisper's special tokens, found by name in its tokenizer.

    Args:
        tokenizer: the checkpoint's vocabulary.
        multilingual: False for the ``.en`` models, which know one language and one task, and no tokens for them.

    Attributes:
        languages: code -> id of the language tokens that the vocabulary has.
        markers: ids that stand before a text and never in it.
        timestamp_begin: id of ``<|0.00|>``; each further id is 0.02 s later.

    Raises:
        WeightsError: if the vocabulary lacks one of the tokens.
    """

    def __init__(self, tokenizer: Tokenizer, *, multilingual: bool) -> None:
        self.tokenizer = tokenizer
        self.multilingual = multilingual
        self.end = self._find("<|endoftext|>")
        self.start = self._find("<|startoftranscript|>")
        self.translate = self._find("<|translate|>")
        self.transcribe = self._find("<|transcribe|>")
        self.start_of_lm = self._find("<|startoflm|>")
        self.start_of_previous = self._find("<|startofprev|>")
        self.no_speech = self._find("<|nospeech|>", "<|nocaptions|>")  # renamed by Transformers at some time
        self.no_timestamps = self._find("<|notimestamps|>")
        self.blank = self._find("Ġ")
        self.timestamp_begin = self.no_timestamps + 1
        self.markers = {
            self.start, self.translate, self.transcribe, self.start_of_lm, self.start_of_previous, self.no_speech
        }  # fmt: skip
        known = ((code, tokenizer.id(f"<|{code}|>")) for code in LANGUAGES)
        self.languages = {code: id for code, id in known if id is not None}

    def _find(self, *names: str) -> int:
        for name in names:
            id = self.tokenizer.id(name)
            if id is not None:
                return id
        raise WeightsError(f"the tokenizer has no token {names[0]}: this is not Whisper's vocabulary")

    def start_sequence(self, language: str, task: str, *, timestamps: bool) -> list[int]:
        """The tokens that open every transcript: start, then language and task if the model is multilingual.

        Args:
            language: a code, as ``check_language`` returns it.
            task: ``"transcribe"`` or ``"translate"`` (into English).
            timestamps: whether the model may write timestamps.
        """
        ids = [self.start]
        if self.multilingual:
            ids += [self.languages[language], self.translate if task == "translate" else self.transcribe]
        return ids if timestamps else [*ids, self.no_timestamps]

    def check_language(self, language: str) -> str:
        """The code of a language given by code or name. Raises ArgumentError if this model does not know it."""
        code = language_code(language)
        if not self.multilingual and code != "en":
            raise ArgumentError(f"this model knows English only, not {code!r}; use one without '.en' in its name")
        if self.multilingual and code not in self.languages:
            raise ArgumentError(f"this model does not know {LANGUAGES[code].title()} ({code!r})")
        return code

    def check_task(self, task: str) -> str:
        """The task itself. Raises ArgumentError if there is no such task, or this model cannot do it."""
        if task not in TASKS:
            raise ArgumentError(f"unknown task {task!r}; there are 'transcribe' and 'translate' (into English)")
        if task == "translate" and not self.multilingual:
            raise ArgumentError("this model knows English only and cannot translate; use one without '.en' in its name")
        return task

    def text(self, ids: Sequence[int]) -> str:
        """The words in some ids, without timestamps and special tokens."""
        return self.tokenizer.decode(id for id in ids if id < self.end)

    def seconds(self, id: int) -> float:
        """The time that a timestamp token stands for, from the beginning of its window."""
        return (id - self.timestamp_begin) * SECONDS_PER_TIMESTAMP

    def never_spoken(self) -> list[int]:
        """Ids of symbols that nobody speaks: speaker tags, notes, brackets; common punctuation may stay.

        Hyphen and apostrophe are forbidden at the beginning of a word only. For a checkpoint without such a list.
        """
        symbols = [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』']
        symbols += """<< >> <<< >>> -- --- -( -[ (' (" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪""".split()  # noqa: SIM905
        notes = "♩♪♫♬♭♮♯"  # their first token covers rare symbols only, so it may go even where there are several
        found = {self.tokenizer.encode(" -")[0], self.tokenizer.encode(" '")[0]}
        for symbol in [*symbols, *notes]:
            for ids in (self.tokenizer.encode(symbol), self.tokenizer.encode(" " + symbol)):
                if len(ids) == 1 or symbol in notes:
                    found.add(ids[0])
        return sorted(found)

    def split_words(self, ids: Sequence[int], language: str) -> list[tuple[str, list[int]]]:
        """Cut text ids into words: at spaces, or at every whole character for languages written without spaces.

        Returns:
            Pairs of a word, with the space before it, and its ids. Punctuation is a word of its own.
        """
        pieces = self._split_characters(ids)
        if language in _WITHOUT_SPACES:
            return pieces
        words: list[tuple[str, list[int]]] = []
        for text, piece in pieces:
            begins = piece[0] >= self.end or text.startswith(" ") or text.strip() in string.punctuation
            if begins or not words:
                words.append((text, piece))
            else:
                words[-1] = words[-1][0] + text, words[-1][1] + piece
        return words

    def _split_characters(self, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Cut ids wherever a UTF-8 character ends; bytes that can never become one are a piece of their own."""
        pieces: list[tuple[str, list[int]]] = []
        pending: list[int] = []
        for id in ids:
            pending.append(id)
            data = self.tokenizer.decode_bytes(pending, skip_special=False)
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                if error.end == len(data) and error.reason == "unexpected end of data":
                    continue
                text = data.decode(errors="replace")
            pieces.append((text, pending))
            pending = []
        if pending:
            pieces.append((self.tokenizer.decode(pending, skip_special=False), pending))
        return pieces
