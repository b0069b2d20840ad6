"""What Tallow knows of an architecture beside its modules: a ``SPEC`` in the model's own file says all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tallow.runtime.sizes import Sizes
from tallow.weights.adapters.gguf import GGUFNames

if TYPE_CHECKING:
    from tallow.weights.ctranslate2 import CTranslate2File
    from tallow.weights.source import Source


@dataclass(frozen=True)
class CTranslate2Names:
    """How an architecture lies in CTranslate2's files.

    Attributes:
        spec: the name that the file has for the architecture, such as ``"WhisperSpec"``.
        config: (file, its ``config.json``) -> what Hugging Face's ``config.json`` and ``generation_config.json`` say.
        names: the file's variables under the names that the modules ask for.
    """

    spec: str
    config: Callable[[CTranslate2File, dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]]
    names: Callable[[CTranslate2File], Source]


@dataclass(frozen=True)
class Export:
    """How a language model is written for Transformers.

    Attributes:
        name: of its classes there, such as ``"Qwen3"`` for ``Qwen3ForCausalLM``.
        biases: groups of projections that have biases there all together or not at all.
    """

    name: str
    biases: tuple[tuple[str, ...], ...] = ()


def _same(source: Source) -> Source:
    return source


@dataclass(frozen=True)
class Spec:
    """An architecture. ``registry.py`` finds it by the names that files have for it.

    Attributes:
        model: its class, which has ``Config.from_dict`` and ``from_checkpoint``.
        model_types: Hugging Face's ``model_type``, and others that mean the same.
        sizes: from what ``config.json`` says, for the estimate of memory.
        unread: tensors that the model rightly leaves unread: a pattern of the whole name, and why.
        names: a Hugging Face file's tensors under the names that the modules ask for.
        gguf: how it lies in GGUF files; None if it is in none.
        ctranslate2: how it lies in CTranslate2's files; None if it is in none.
        export: how it is written for Transformers; None if it cannot be converted.
        published: from what ``config.json`` says, the published model that alone has these sizes, or None.
    """

    model: Any
    model_types: tuple[str, ...]
    sizes: Callable[[Mapping[str, Any]], Sizes]
    unread: Mapping[str, str] = field(default_factory=dict)
    names: Callable[[Source], Source] = _same
    gguf: GGUFNames | None = None
    ctranslate2: CTranslate2Names | None = None
    export: Export | None = None
    published: Callable[[Mapping[str, Any]], str | None] = lambda config: None
