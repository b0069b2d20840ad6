"""What the engine asks of a language model; ``models/language_model.py`` has what every one of them shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tallow.device import Device
from tallow.engine.kv_cache import DecoderCache
from tallow.nn import RMSNorm
from tallow.tensor import Tensor
from tallow.text.language import Text


class Network(Protocol):
    """A decoder: tokens in, logits out.

    Attributes:
        config: sizes.
        text: tokenizer, chat template and what goes with them.
        norm: of what the last layer says.
    """

    config: Any
    text: Text
    norm: RMSNorm

    @property
    def device(self) -> Device:
        """Where it computes."""
        ...

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        ...

    def forward(self, ids: Tensor, cache: DecoderCache, counts: Sequence[int] | None = None) -> Tensor:
        """See ``LanguageModel.forward``."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, dim) -> (…, vocab)."""
        ...

    def new_cache(self, batch: int, capacity: int, dtype: str = "auto") -> DecoderCache:
        """An empty cache; see ``LanguageModel.new_cache``."""
        ...

    def cache_dtype(self, dtype: str) -> str:
        """How keys and values are stored; see ``LanguageModel.new_cache``."""
        ...


class Conversing(Network, Protocol):
    """One that answers by itself, which is what a session needs."""

    @property
    def generate(self) -> Callable[..., Any]:
        """See ``LanguageModel.generate``."""
        ...

    @property
    def chat(self) -> Callable[..., Any]:
        """See ``LanguageModel.chat``."""
        ...
