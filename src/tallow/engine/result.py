"""What generation gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tallow.text.tool_calls import ToolCall


class TokenLogprob(NamedTuple):
    """How likely the model found a token, before bias, penalties, temperature and cuts.

    Attributes:
        id: the token.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens at this place with their log-probabilities, the likeliest first.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


Choice = int | TokenLogprob
"""A token that has been chosen; with its log-probability where that was asked for."""


def token_logprobs(ids: Any, values: Any) -> list[TokenLogprob]:
    """Both results of ``ops.top_logprobs``, as NumPy arrays, for each row."""
    return [
        TokenLogprob(id, value, tuple(zip(likeliest, others, strict=True)))
        for (id, *likeliest), (value, *others) in zip(ids.tolist(), values.tolist(), strict=True)
    ]


@dataclass
class Timings:
    """Seconds. In a batch, each prompt's are those of the whole batch while it was in it. What the reader of a stream
    does between two pieces is not counted.

    Attributes:
        prefill: reading the prompt, until the first token was known.
        decode: from there to the last token.
    """

    prefill: float = 0.0
    decode: float = 0.0


@dataclass
class Generation:
    """An answer.

    Attributes:
        text: what was written, without special tokens and without the stop string; empty for a model without a
            tokenizer. Of a conversation's answer, without reasoning and tool calls.
        ids: every token of it; the token that ended it is not among them.
        finish_reason: ``"stop"`` (the model ended it, or a stop string or token came), ``"length"`` (``max_tokens``, or
            the context is full) or ``"cancelled"``.
        prompt_tokens: tokens of the prompt.
        reused_tokens: how many of them were already in the session's cache.
        timings: seconds.
        logprobs: of each token, if they were asked for.
        reasoning: what the model thought before it answered; None if it did not.
        tool_calls: functions that it wants called.
    """

    text: str
    ids: list[int]
    finish_reason: str
    prompt_tokens: int
    reused_tokens: int = 0
    timings: Timings = field(default_factory=Timings)
    logprobs: list[TokenLogprob] | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        """How fast tokens came, the first not counted."""
        return (len(self.ids) - 1) / self.timings.decode if self.timings.decode > 0 and self.ids else 0.0

    def message(self) -> dict[str, Any]:
        """The answer as the assistant's message in a conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning is not None:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                | ({} if call.id is None else {"id": call.id})
                for call in self.tool_calls
            ]
        return message
