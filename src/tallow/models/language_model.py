"""What a language model does with text, whatever its architecture: generate, chat, embed, score."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tallow import ops
from tallow.device import Device
from tallow.engine import reading
from tallow.engine.generate import start
from tallow.engine.kv_cache import DecoderCache
from tallow.engine.prompts import Prompt, fit, token_ids
from tallow.engine.request import options_of_each
from tallow.engine.result import Generation
from tallow.engine.session import Session
from tallow.errors import TemplateError, WeightsError
from tallow.nn import Embedding, Module, RMSNorm
from tallow.runtime.resident import use
from tallow.tensor import Tensor
from tallow.text.answer import split_reasoning
from tallow.text.chat_template import conversation
from tallow.text.language import Text
from tallow.text.tokenizer import Tokenizer
from tallow.text.tool_calls import marks, signatures, split_tool_calls
from tallow.weights.var_builder import VarBuilder

if TYPE_CHECKING:
    from tallow.matrix.weight import Weight
    from tallow.weights.checkpoint import Checkpoint

INT8_GROUP = 16  # inputs that share a scale: with one for each row perplexity rises by 4 %, with groups of 32 by 0.6 %


class Head(Module):
    """The projection to the vocabulary: the embedding's table, or one of its own.

    Args:
        embedding: of the tokens.
        tied: whether its table serves.
        vb: weight ``lm_head.weight`` (vocab, dim) if not. A model saved for its embeddings lacks it.
    """

    def __init__(self, embedding: Embedding, tied: bool, vb: VarBuilder) -> None:
        self.weight: Weight | None = embedding.weight
        if not tied:
            has = vb.contains("lm_head.weight")
            self.weight = vb.weight(embedding.weight.shape, "lm_head.weight", table=True) if has else None

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) -> (…, vocab).

        Raises:
            WeightsError: if the checkpoint has no such weight.
        """
        if self.weight is None:
            raise WeightsError("this model has no lm_head.weight: it gives embeddings, but no text")
        return ops.linear(x, self.weight)


class LanguageModel(Module):
    """A decoder that reads tokens and says which may come next. Architectures say how; tasks are defined here.

    Attributes:
        config: sizes.
        text: tokenizer, chat template and what goes with them.
        norm: of what the last layer says.

    Examples:
        >>> from tallow.models.qwen3 import Qwen3, Qwen3Config
        >>> sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        ...          "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
        >>> llm = Qwen3(Qwen3Config.from_dict(sizes), tl.VarBuilder.random())  # tl.load gives a trained one
        >>> answer = llm.generate([5, 9, 40], max_tokens=4, ignore_eos=True)
        >>> len(answer.ids), answer.finish_reason
        (4, 'length')
        >>> [len(each.ids) for each in llm.generate([[5, 9, 40], [7]], max_tokens=3, ignore_eos=True)]
        [3, 3]
    """

    Config: ClassVar[Any]
    config: Any
    text: Text
    norm: RMSNorm

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, vb: VarBuilder) -> Any:
        """Build the model from an opened checkpoint."""
        vb = vb.with_quant_group_size(INT8_GROUP)
        return cls(cls.Config.from_dict(checkpoint.config), vb, Text.from_checkpoint(checkpoint))  # type: ignore[call-arg]

    def forward(self, ids: Tensor, cache: DecoderCache, counts: Sequence[int] | None = None) -> Tensor:
        """Read tokens that follow what the cache holds, and keep them there.

        Args:
            ids: (b, n) integers, padded in front for rows that have fewer.
            cache: of b rows, from ``new_cache``.
            counts: (b,) how many of the n each row has; None for all.

        Returns:
            (b, n, dim): what the last layer says of each, normalised.
        """
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, dim) -> (…, vocab): how likely each token is to come next, as unnormalised log-probabilities."""
        raise NotImplementedError

    def new_cache(self, batch: int, capacity: int, dtype: str = "auto") -> DecoderCache:
        """An empty cache.

        Args:
            batch: rows, at most.
            capacity: positions that a row can hold; address space is reserved for them, memory as they come.
            dtype: how keys and values are stored, ``"float32"``, ``"float16"``, on the CPU ``"int8"``, on a GPU
                ``"bfloat16"``; ``"auto"`` is float32 on the CPU, and on a GPU as what the model computes in.
        """
        config, stored = self.config, self.cache_dtype(dtype)
        return DecoderCache(
            config.num_hidden_layers, batch, config.num_key_value_heads, config.head_dim, capacity, stored, self.device
        )

    def cache_dtype(self, dtype: str) -> str:
        """How keys and values are stored; see ``new_cache`` for what ``"auto"`` means."""
        if dtype != "auto":
            return dtype
        return "float32" if self.device.kind == "cpu" else self.norm.dtype.name

    @property
    def device(self) -> Device:
        """Where it computes."""
        return self.norm.weight.device

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return int(self.config.max_position_embeddings)

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary: ``encode(str)`` gives ids, ``decode(ids)`` text. Raises WeightsError if there is none."""
        return self.text.tokenizer

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        max_tokens: int = 256,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | int | Sequence[str | int] = (),
        ignore_eos: bool = False,
        keep_special: str | Collection[str] = (),
        logprobs: int | None = None,
        schema: Mapping[str, Any] | str | None = None,
        regex: str | None = None,
        grammar: str | None = None,
        prompt_lookup_tokens: int = 0,
        truncate: bool = False,
        per_prompt: Sequence[Mapping[str, Any]] | None = None,
        stream: bool = False,
        cancel: threading.Event | None = None,
        cache_dtype: str = "auto",
        session: Session | None = None,
        finish: Callable[[Generation], Generation] | None = None,
    ) -> Any:
        """Go on with a text, or with several at once.

        Args:
            prompt: a text or its ids, or a list of them. Special tokens that are written out in a text count as such.
            max_tokens: tokens of an answer, at most; the context may end it earlier.
            temperature: see ``Sampling`` for this and the six after it. None takes what the model's authors recommend,
                or greedy decoding (0) if they don't say.
            top_k: likewise.
            top_p: likewise.
            min_p: likewise.
            repetition_penalty: likewise.
            presence_penalty: none by default.
            frequency_penalty: none by default.
            logit_bias: id -> number added to its logit.
            seed: fixes the draws. An answer depends on its prompt, the prompt's place in the list and the seed, and
                not on what else is in the list.
            stop: strings or token ids that end an answer; they are not part of it.
            ignore_eos: whether to go on where the model would end.
            keep_special: special tokens, such as ``"[TOOL_CALLS]"``, that stand in the text all the same.
            logprobs: how many likeliest tokens to list with each; 0 for its own log-probability alone.
            schema: a JSON schema that the answer must follow. Needs the extra ``grammar``, as do the next two.
            regex: a regular expression that it must match.
            grammar: a grammar in Lark's notation that it must follow.
            prompt_lookup_tokens: tokens to guess at a time by looking them up in the prompt. Changes speed, never the
                answer.
            truncate: whether a prompt longer than the context is cut, so that its end and an answer fit, instead of
                being an error.
            per_prompt: for each prompt of a list what it has instead of the arguments above, such as
                ``[{"temperature": 0.2}, {"seed": 3, "max_tokens": 20}]``.
            stream: return a ``Stream`` of pieces of text instead of waiting for the end.
            cancel: ends the answers between two tokens when it is set.
            cache_dtype: how keys and values are stored, ``"float32"``, ``"float16"``, on the CPU ``"int8"``, on a GPU
                ``"bfloat16"``; ``"auto"`` is float32 on the CPU, and on a GPU as what the model computes in.
            session: see ``Session.generate``.
            finish: changes each result before it is given.

        Returns:
            A ``Generation``, or a list of them for a list of prompts; with ``stream``, an iterator of strings, or of
            (place, string) for a list.

        Raises:
            ArgumentError: for a setting that cannot be, an empty prompt, or one longer than the context.
            WeightsError: for text without a tokenizer.
        """
        asked = {
            "max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repetition_penalty": repetition_penalty, "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty, "logit_bias": logit_bias or {}, "seed": seed, "stop": stop,
            "ignore_eos": ignore_eos, "keep_special": keep_special, "logprobs": logprobs, "schema": schema,
            "regex": regex, "grammar": grammar, "prompt_lookup_tokens": prompt_lookup_tokens, "cancel": cancel,
        }  # fmt: skip
        prompts, single = token_ids(prompt, self.text, self.config.vocab_size)
        options = options_of_each(asked, per_prompt, len(prompts), self.text.defaults)
        prompts = [
            fit(ids, self.context, each.max_tokens, truncate) for ids, each in zip(prompts, options, strict=True)
        ]
        with use(self):
            written = start(self, prompts, options, session or cache_dtype, finish or (lambda result: result), single)
            return written if stream else written.result()

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool | None = None,
        chat_template: str | None = None,
        template_variables: Mapping[str, Any] | None = None,
        max_tokens: int = 2048,
        **options: Any,
    ) -> Any:
        """Answer in a conversation.

        Args:
            messages: what was said, ``[{"role": "user", "content": "Hello"}, …]``; or a string, which the user says; or
                a list of conversations.
            tools: JSON schemas of functions that the model may call.
            enable_thinking: whether a model that can do so thinks before it answers; None for its own default.
            chat_template: the name of one of the model's templates, or the text of another; None for ``"tool_use"``
                where there are tools and the model has it, else ``"default"``.
            template_variables: what else the model's chat template reads.
            max_tokens: tokens of an answer, reasoning included, at most.
            options: the others of ``generate``. A stream's pieces come as they are written, reasoning and tool calls
                included.

        Returns:
            As ``generate``; a ``Generation`` has ``reasoning`` and ``tool_calls`` apart from its ``text``.

        Raises:
            TemplateError: if the model has no chat template, if the template refuses the conversation, or if there are
                tools and it reads none, so that the model would never see them.
            ArgumentError: as ``generate``.
        """
        templates = self.text.template if chat_template is None else self.text.templates
        template, tokenizer = templates.chosen(tools, chat_template), self.text.tokenizer
        if tools and not template.reads("tools"):
            raise TemplateError(
                "the model's chat template reads no tools, so the model would never see them; pass chat_template= with "
                "one that does, or describe them in a system message instead of tools="
            )
        variables = {**(template_variables or {}), "tools": tools}
        if enable_thinking is not None:
            variables["enable_thinking"] = enable_thinking
        many = not isinstance(messages, str) and bool(messages) and not isinstance(messages[0], (Mapping, str))
        conversations: Any = messages if many else [messages]
        written = [template.render(one, **variables) for one in conversations]
        known, source = signatures(tools or ()), template.sources["default"]
        if tools:
            kept = options.get("keep_special", ())
            options["keep_special"] = {*([kept] if isinstance(kept, str) else kept), *marks(source)}
        prompts = [tokenizer.encode(text, special=True) for text in written]

        def take_apart(result: Generation) -> Generation:
            if template.mentions("</think>"):
                result.reasoning, result.text = split_reasoning(result.text, written[0])
            if known:
                result.tool_calls, result.text = split_tool_calls(result.text, known, source)
            if options.get("session") is not None:
                options["session"].messages = [*conversation(conversations[0]), result.message()]
            return result

        return self.generate(prompts if many else prompts[0], max_tokens=max_tokens, finish=take_apart, **options)

    def session(self, *, cache_dtype: str = "auto") -> Session:
        """Begin a conversation whose turns share what was computed for the ones before.

        Args:
            cache_dtype: how keys and values are stored, ``"float32"``, ``"float16"``, on the CPU ``"int8"``, on a GPU
                ``"bfloat16"``; ``"auto"`` is float32 on the CPU, and on a GPU as what the model computes in.
        """
        return Session(self, cache_dtype)

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        instruction: str | None = None,
        dims: int | None = None,
        truncate: bool = False,
        batch_size: int = 8,
    ) -> Tensor:
        """Vectors for texts: what the model says of each text's last token.

        Args:
            texts: one, or several.
            instruction: what the texts are queries for, such as ``"Given a web search query, retrieve relevant passages
                that answer the query"``; None for documents. Models made for embeddings are trained with it.
            dims: how many of the dimensions to keep, for models whose first ones say most (Kusupati et al. 2022,
                "Matryoshka representation learning"); None for all.
            truncate: whether a text longer than the context is cut at its end, instead of being an error.
            batch_size: texts to read at once.

        Returns:
            (texts, dims) float32, rows of length 1; (dims,) for one text.

        Raises:
            ArgumentError: for a text longer than the context, or dims that the model doesn't have.
        """
        return reading.embed(self, texts, instruction, dims, truncate, batch_size)

    def score(self, text: str | Sequence[int]) -> reading.Score:
        """How well the model predicts a text.

        Args:
            text: a text, or ids.

        Returns:
            ``perplexity``, and the ``logprobs`` of the tokens after the first.

        Raises:
            ArgumentError: for a text longer than the context, or of fewer than two tokens.
        """
        return reading.score(self, text)
