"""One answer in the making."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from tallow import ops
from tallow.engine.grammar import Grammar, Matcher
from tallow.engine.prompt_lookup import PromptLookup
from tallow.engine.result import Choice, Generation, Timings, TokenLogprob, token_logprobs
from tallow.engine.sampling import Sampler, Sampling
from tallow.engine.stopping import TextUntilStop
from tallow.errors import ArgumentError
from tallow.tensor import Tensor
from tallow.text.language import Text

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Options:
    """What a caller asks of an answer.

    Attributes:
        max_tokens: tokens, at most.
        sampling: how they are chosen.
        stop: strings and token ids that end it.
        ignore_eos: whether to go on where the model would end.
        keep_special: special tokens that stand in the text all the same.
        logprobs: how many likeliest tokens to list beside each; None for no log-probabilities.
        grammar: what it must look like.
        prompt_lookup_tokens: tokens to guess at a time by looking them up in what came before; 0 for none.
        cancel: ends the answer when it is set.
    """

    max_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop: Sequence[str | int] = ()
    ignore_eos: bool = False
    keep_special: frozenset[str] = frozenset()
    logprobs: int | None = None
    grammar: Grammar | None = None
    prompt_lookup_tokens: int = 0
    cancel: threading.Event | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 0), ("prompt_lookup_tokens", 0), ("logprobs", 0)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ArgumentError(f"{name} must be a whole number from {least}, found {value!r}")
        for stop in self.stop:
            if not (isinstance(stop, str) and stop) and not (isinstance(stop, int) and stop >= 0):
                raise ArgumentError(f"stop takes strings that are not empty and token ids, found {stop!r}")

    @property
    def plain(self) -> bool:
        """Whether the next token follows from the logits and a random number: nothing else has a say in it."""
        return self.sampling.plain and not (self.prompt_lookup_tokens or self.grammar)


_SAMPLING = tuple(each.name for each in fields(Sampling))
_GRAMMAR = ("schema", "regex", "grammar")
_RECOMMENDED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def options_of_each(
    asked: Mapping[str, Any], per_prompt: Sequence[Mapping[str, Any]] | None, count: int, defaults: Mapping[str, Any]
) -> list[Options]:
    """What is asked of each answer.

    Args:
        asked: the arguments of ``LanguageModel.generate`` for all of them.
        per_prompt: for each what differs.
        count: of prompts.
        defaults: what the model's authors recommend where an argument is None.

    Raises:
        ArgumentError: for settings that are not of each prompt, or that cannot be.
    """
    if per_prompt is None:
        return [_options(asked, defaults)] * count
    if len(per_prompt) != count:
        raise ArgumentError(f"per_prompt: expected settings for each of {count} prompts, found {len(per_prompt)}")
    unknown = sorted({str(name) for own in per_prompt for name in own} - asked.keys())
    if unknown:
        raise ArgumentError(f"per_prompt: {unknown[0]!r} is no setting of a prompt; there are {', '.join(asked)}")
    return [_options({**asked, **own}, defaults) for own in per_prompt]


def _options(asked: Mapping[str, Any], defaults: Mapping[str, Any]) -> Options:
    values = {name: value for name, value in asked.items() if name not in (*_SAMPLING, *_GRAMMAR)}
    chosen = {name: asked[name] for name in _SAMPLING}
    chosen |= {name: defaults.get(name) for name in _RECOMMENDED if chosen[name] is None}
    given = {name: value for name, value in chosen.items() if value is not None}
    stop, special = values["stop"], values["keep_special"]
    values["stop"] = [stop] if isinstance(stop, (str, int)) else tuple(stop)
    values["keep_special"] = frozenset([special] if isinstance(special, str) else special)
    rules = [asked[name] for name in _GRAMMAR]
    grammar = Grammar(*rules) if any(rule is not None for rule in rules) else None
    return Options(sampling=Sampling(**given), grammar=grammar, **values)


class Request:
    """A prompt, and the answer so far.

    Args:
        prompt: ids.
        row: its place in the list of prompts.
        options: what is asked of the answer.
        text: the model's tokenizer and the ids by which it ends an answer.
        vocab: how many logits the model gives.
        room: positions that are left for prompt and answer.

    Attributes:
        sampler: chooses its tokens.
    """

    def __init__(self, prompt: Sequence[int], row: int, options: Options, text: Text, vocab: int, room: int) -> None:
        self.prompt = list(prompt)
        self.row = row
        self.options = options
        self.reused = 0
        self.ids: list[int] = []
        self.finish_reason: str | None = None
        self.timings = Timings()
        self.most = min(options.max_tokens, room - len(prompt))
        self._ends = {stop for stop in options.stop if isinstance(stop, int)}
        if not options.ignore_eos:
            self._ends |= text.eos_token_ids
        self.sampler = Sampler(options.sampling, prompt, row)
        self._matcher: Matcher | None = options.grammar.matcher(text, vocab) if options.grammar else None
        strings = [stop for stop in options.stop if isinstance(stop, str)]
        if strings and not text.has_tokenizer:
            text.tokenizer  # noqa: B018  (raises: there is no text to find them in)
        tokenizer = text.tokenizer if text.has_tokenizer else None
        self._text = TextUntilStop(tokenizer, strings, self.prompt, options.keep_special)
        self._lookup = PromptLookup(prompt) if options.prompt_lookup_tokens else None
        self._logprobs: list[TokenLogprob] = []
        if self.most <= 0:
            self.finish_reason = "length"

    def guess(self) -> list[int]:
        """Tokens that may come after the last one, to be checked by the model together with it."""
        if self._lookup is None:
            return []
        return self._lookup.guess(min(self.options.prompt_lookup_tokens, self.most - len(self.ids) - 1))

    def add(self, logits: Array | Choice) -> tuple[int, str]:
        """Choose the next token.

        Args:
            logits: (vocab,) float32, what the model says after the last token; or the token itself, if the step has
                chosen it, with its log-probability if that was asked for.

        Returns:
            The token, and the text that it adds. ``finish_reason`` is set if the answer ends with it.
        """
        if isinstance(logits, int):
            id = logits
        elif isinstance(logits, TokenLogprob):
            id = logits.id
        else:
            id = self.sampler.choose(logits if self._matcher is None else self._matcher.allowed(logits))
        if id in self._ends:
            self.finish_reason = "stop"
            return id, ""
        self._note(id, logits)
        piece = self._text.add(id)
        if self._text.stopped or (self._matcher is not None and self._matcher.finished):
            self.finish_reason = "stop"
        elif len(self.ids) >= self.most:
            self.finish_reason = "length"
        return id, piece

    def _note(self, id: int, logits: Array | Choice) -> None:
        self.ids.append(id)
        self.sampler.accept(id)
        if self._matcher is not None:
            self._matcher.accept(id)
        if self._lookup is not None:
            self._lookup.add(id)
        if self.options.logprobs is not None and not isinstance(logits, int):
            if not isinstance(logits, TokenLogprob):
                found = ops.top_logprobs(Tensor(logits[None]), Tensor(np.array([id])), self.options.logprobs)
                (logits,) = token_logprobs(*(part.numpy() for part in found))
            self._logprobs.append(logits._replace(top=logits.top[: self.options.logprobs]))

    def end(self) -> str:
        """The text that was held back because a stop string might have come."""
        return self._text.end()

    def result(self) -> Generation:
        """The answer."""
        return Generation(
            text=self._text.text,
            ids=self.ids,
            finish_reason=self.finish_reason or "cancelled",
            prompt_tokens=len(self.prompt),
            reused_tokens=self.reused,
            timings=self.timings,
            logprobs=None if self.options.logprobs is None else self._logprobs,
        )
