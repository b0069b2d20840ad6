"""What the Whisper tests share: a small vocabulary with Whisper's special tokens, toy decoders, a tiny model."""

import functools

import numpy as np

from tallow.models.whisper.languages import LANGUAGES
from tallow.models.whisper.tokens import WhisperTokens
from tallow.text.tokenizer import Tokenizer

WORDS = ["!", "Ġ", "Ġhello", "Ġworld", "ing", ".", ",", "Ġ(", 'Ġ"', "'s", "æ", "Ŀ", "±", "Ġyes"]


def vocabulary(languages=("en", "de", "zh")):
    """Words, then special tokens in Whisper's order; the timestamps come after and have no entry."""
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES if code in languages)]
    special += [
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
    ]
    vocab = {word: id for id, word in enumerate(WORDS)}
    return vocab, {name: len(WORDS) + i for i, name in enumerate(special)}


def encoder():
    """An encoder good enough for prompts made of the words above."""

    class Encoded(list):
        @property
        def ids(self):
            return list(self)

    class Encoder:
        def encode(self, text, add_special_tokens=False):
            text, ids = text.replace(" ", "Ġ"), []
            while text:
                word = max((w for w in WORDS if text.startswith(w)), key=len)
                ids.append(WORDS.index(word))
                text = text[len(word) :]
            return Encoded(ids)

    return Encoder()


def tokenizer():
    vocab, added = vocabulary()
    return Tokenizer(vocab, added, added.values(), encoder)


@functools.cache
def tokens(multilingual=True):
    return WhisperTokens(tokenizer(), multilingual=multilingual)


def ids(*items):
    """Ids of words ("hello"), of times (1.5) and of special tokens ("<|en|>")."""
    known = tokens()
    result = []
    for item in items:
        if isinstance(item, float):
            result.append(known.timestamp_begin + round(item / 0.02))
        else:
            found = known.tokenizer.id("Ġ" + item)
            result.append(known.tokenizer.id(item) if found is None else found)
    assert None not in result, items
    return result


class ToyDecoder:
    """A decoder whose logits depend on the whole row written so far, by a table of random numbers.

    Args:
        vocabulary: ids.
        seed: of the numbers.
        scale: of the logits.
    """

    def __init__(self, vocabulary, seed=0, scale=2.0):
        self.vocabulary, self.seed, self.scale = vocabulary, seed, scale
        self.rows = []
        self.steps = 0

    def logits(self, row):
        rng = np.random.default_rng([self.seed, len(row), *row])
        return (rng.normal(size=self.vocabulary) * self.scale).astype(np.float32)

    def start(self, prompt, positions):
        self.rows = [list(prompt)]
        return np.stack([self.logits(prompt[: at + 1]) for at in positions])

    def step(self, ids):
        assert len(ids) == len(self.rows)
        self.steps += 1
        self.rows = [[*row, id] for row, id in zip(self.rows, ids, strict=True)]
        return np.stack([self.logits(row) for row in self.rows])

    def select(self, rows):
        self.rows = [self.rows[row] for row in rows]


class ScriptedDecoder:
    """A decoder that writes given tokens, each with almost all of the probability.

    Args:
        script: ids, the end included.
        vocabulary: ids.
        no_speech: id and probability of the token that says that nobody speaks.
        confidence: logit of the scripted token over all others.
    """

    def __init__(self, script, vocabulary, no_speech=(0, 0.0), confidence=30.0):
        self.script, self.vocabulary, self.no_speech, self.confidence = script, vocabulary, no_speech, confidence
        self.written = 0
        self.prompt = None

    def _logits(self, count):
        logits = np.zeros((count, self.vocabulary), np.float32)
        logits[:, self.script[min(self.written, len(self.script) - 1)]] = self.confidence
        return logits

    def start(self, prompt, positions):
        self.prompt, self.written = list(prompt), 0
        id, probability = self.no_speech
        first = np.zeros(self.vocabulary, np.float32)
        others = np.log(max(1 - probability, 1e-9) / (self.vocabulary - 1))
        first[:] = others
        first[id] = np.log(max(probability, 1e-9))
        return np.stack([first, self._logits(1)[0]])

    def step(self, ids):
        self.written += 1
        return self._logits(len(ids))

    def select(self, rows):
        pass
