"""What a language model's checkpoint says of text: tokenizer, chat template, where an answer ends, how to sample."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tallow.errors import ModelNotFoundError, TemplateError, WeightsError
from tallow.text.chat_template import ChatTemplate
from tallow.text.end_tokens import END_TOKENS, end_token_ids
from tallow.text.tokenizer import Tokenizer
from tallow.weights.source import read_json

if TYPE_CHECKING:
    from tallow.weights.checkpoint import Checkpoint

TEMPLATES_FOLDER = "additional_chat_templates"  # of a model's folder: NAME.jinja for each
CHAT_SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
"""How to sample a conversation where the model's authors don't say: as llama.cpp does."""
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


class Text:
    """A language model's side of text.

    Args:
        tokenizer: None for a checkpoint without one: the model then takes and gives ids.
        template: None, or one without sources, for a model that was not trained on conversations.
        ends: ids that end an answer.
        defaults: how the model's authors want it sampled: ``temperature``, ``top_k``, …; empty for greedy.
        where: what errors name.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        template: ChatTemplate | None = None,
        ends: frozenset[int] = frozenset(),
        defaults: Mapping[str, Any] | None = None,
        where: str = "this model",
    ) -> None:
        self._tokenizer = tokenizer
        self.templates = template or ChatTemplate({})
        self.eos_token_ids = ends
        self.defaults = dict(defaults or {})
        self.where = where

    @property
    def has_tokenizer(self) -> bool:
        """Whether it can read and write text."""
        return self._tokenizer is not None

    @property
    def has_template(self) -> bool:
        """Whether it says how conversations are written out."""
        return bool(self.templates.sources)

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary. Raises WeightsError if the checkpoint has none."""
        if self._tokenizer is None:
            raise WeightsError(f"{self.where}: has no tokenizer; add its tokenizer.json, or pass token ids")
        return self._tokenizer

    @property
    def template(self) -> ChatTemplate:
        """How conversations are written out. Raises TemplateError if the checkpoint doesn't say."""
        if not self.has_template:
            raise TemplateError(f"{self.where}: has no chat template; use generate, or pass chat_template=")
        return self.templates

    @property
    def chat_sampling(self) -> dict[str, Any]:
        """How to sample a conversation: as the model's authors say, else ``CHAT_SAMPLING``. Greedy decoding, which is
        what ``generate`` then does, soon repeats itself."""
        return self.defaults if "temperature" in self.defaults else CHAT_SAMPLING | self.defaults

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Text:
        """Take everything out of an opened checkpoint.

        Raises:
            WeightsError: for a damaged tokenizer, or one of a kind that Tallow has not.
        """
        if checkpoint.metadata is not None:
            return _from_gguf(checkpoint, checkpoint.metadata)
        try:
            tokenizer: Tokenizer | None = Tokenizer.from_folder(checkpoint.folder)
        except ModelNotFoundError:
            tokenizer = None
        settings = _read(checkpoint.folder, "tokenizer_config.json")
        tokens = _special_tokens(_read(checkpoint.folder, "special_tokens_map.json") | settings)
        template = ChatTemplate(_folder_templates(checkpoint.folder, settings), tokens)
        generation = checkpoint.generation_config
        ends = set(_ids(generation.get("eos_token_id") or checkpoint.config.get("eos_token_id")))
        if tokenizer is not None and (end := tokenizer.id(tokens.get("eos_token", ""))) is not None:
            ends.add(end)
        if not ends and tokenizer is not None:
            found = {text: id for text in END_TOKENS if (id := tokenizer.added.get(text)) in tokenizer.special}
            ends |= end_token_ids({text: id for text, id in found.items() if id is not None}, {})
        defaults = {key: generation[key] for key in _SAMPLING if generation.get(key) is not None}
        if not generation.get("do_sample"):
            defaults = {}
        if generation.get("repetition_penalty") is not None:
            defaults["repetition_penalty"] = generation["repetition_penalty"]
        return cls(tokenizer, template, frozenset(ends), defaults, checkpoint.folder)


def _from_gguf(checkpoint: Checkpoint, metadata: Mapping[str, Any]) -> Text:
    from tallow.text.gguf_tokenizer import end_ids, gguf_tokenizer, special_token_ids

    where = checkpoint.source.where
    tokenizer = gguf_tokenizer(metadata, where)
    tokens: dict[str, str] = {}
    ends: frozenset[int] = frozenset()
    if tokenizer is not None:
        for name, id in special_token_ids(metadata).items():
            key = {"unknown": "unk", "padding": "pad"}.get(name, name) + "_token"
            tokens[key] = tokenizer.decode([id], skip_special=False)
        ends = end_ids(tokenizer, metadata)
    template = ChatTemplate(_gguf_templates(metadata), tokens)
    keys = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
    defaults = {
        ours: metadata[f"general.sampling.{key}"] for key, ours in keys.items() if f"general.sampling.{key}" in metadata
    }
    return Text(tokenizer, template, ends, defaults, where)


def _read(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    return read_json(path) if os.path.isfile(path) else {}


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """The texts of ``bos_token`` and its like, which are strings or objects."""
    found = {}
    for key, value in settings.items():
        text = value.get("content") if isinstance(value, Mapping) else value
        if key.endswith("_token") and isinstance(text, str):
            found[key] = text
    return found


def _folder_templates(folder: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """The templates of a folder by name: files of their own go before the tokenizer's config, as in Transformers."""
    source = _read(folder, "chat_template.json").get("chat_template") or settings.get("chat_template")
    if isinstance(source, list):
        said = _texts((entry.get("name"), entry.get("template")) for entry in source if isinstance(entry, Mapping))
    else:
        said = _texts(source.items() if isinstance(source, Mapping) else [("default", source)])
    files = {"default": os.path.join(folder, "chat_template.jinja")}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), TEMPLATES_FOLDER, "*.jinja"))):
        files[os.path.basename(path).removesuffix(".jinja")] = path
    found = {name: _read_template(path) for name, path in files.items() if os.path.isfile(path)}
    return found if "default" in found else said | found


def _read_template(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(1 << 20)


def _gguf_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The templates of a GGUF file by name; that without a name is the default."""
    found = {"default": metadata.get("tokenizer.chat_template")}
    named = "tokenizer.chat_template."
    found |= {key.removeprefix(named): value for key, value in metadata.items() if key.startswith(named)}
    return _texts(found.items())


def _texts(entries: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """Templates by name, without what is none."""
    return {name: text for name, text in entries if isinstance(name, str) and isinstance(text, str) and text}


def _ids(value: Any) -> Iterator[int]:
    for id in value if isinstance(value, list) else [value]:
        if type(id) is int:
            yield id
