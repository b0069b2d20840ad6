"""What the commands for language models share: options, loading, and answers that Ctrl-C stops."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tallow.models.language_model import LanguageModel

DEFAULT_MODEL = "Qwen/Qwen3-0.6B"


def add_model_options(parser: argparse.ArgumentParser, default: str | None = DEFAULT_MODEL) -> None:
    """Which model, and how it is loaded."""
    said = "" if default is None else f" ({default})"
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--model", default=default, metavar="NAME",
        help=f"a GGUF file, a folder, an installed package, or a name on the Hugging Face hub{said}",
    )  # fmt: skip
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    group.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="how weights are stored")
    group.add_argument("--quantize", choices=("int8", "fp8", "int4"), help="store weights in fewer bits")


def add_sampling_options(parser: argparse.ArgumentParser, max_tokens: int) -> None:
    """How an answer is written."""
    group = parser.add_argument_group("the answer")
    group.add_argument("--max-tokens", type=int, default=max_tokens, metavar="N", help=f"at most ({max_tokens})")
    group.add_argument("--temperature", type=float, metavar="T", help="0 takes the likeliest token (the model's own)")
    group.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest tokens may come")
    group.add_argument("--top-p", type=float, metavar="P", help="only the likeliest tokens that make up P may come")
    group.add_argument("--min-p", type=float, metavar="P", help="only tokens P times as likely as the likeliest")
    group.add_argument("--repetition-penalty", type=float, metavar="X", help="above 1 avoids what was said")
    group.add_argument("--seed", type=int, metavar="N", help="fixes what is drawn")
    group.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the answer; may be repeated")
    group.add_argument("--schema", metavar="FILE", help="a JSON schema that the answer must follow")
    group.add_argument(
        "--prompt-lookup-tokens", type=int, default=0, metavar="N", help="guess N tokens at a time from what was said"
    )
    group.add_argument("--stats", action="store_true", help="tell tokens and speed on stderr")


def sampling_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of ``LanguageModel.generate`` that the arguments mean."""
    names = (
        "max_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "seed",
        "stop",
        "prompt_lookup_tokens",
    )
    options = {name: getattr(args, name) for name in names}
    if args.schema is not None:
        with open(args.schema, encoding="utf-8") as file:
            options["schema"] = file.read()
    return options


def load_model(args: argparse.Namespace) -> Any:
    """The model that the arguments name."""
    from tallow.loading import load

    return load(args.model, device=args.device, dtype=args.dtype, quantize=args.quantize)


def load_language_model(args: argparse.Namespace) -> LanguageModel:
    """The model that the arguments name. Raises ArgumentError for one of another kind."""
    from tallow.errors import ArgumentError

    model = load_model(args)
    if not hasattr(model, "generate"):
        raise ArgumentError(f"{args.model} is a {type(model).__name__}, which writes no text; name a language model")
    return model  # type: ignore[no-any-return]


def print_answer(stream: Any) -> Any:
    """Print an answer as it is written; its ``Generation``."""
    for piece in stream:
        print(piece, end="", flush=True)
    return stream.result()


def statistics(result: Any) -> str:
    """Tokens and speed of an answer, in a line."""
    read = result.prompt_tokens - result.reused_tokens
    prefill = read / result.timings.prefill if result.timings.prefill else 0.0
    return (
        f"{result.prompt_tokens} tokens read ({result.reused_tokens} known already) at {prefill:.0f} a second, "
        f"{len(result.ids)} written at {result.tokens_per_second:.1f} a second, ended by {result.finish_reason}"
    )


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, instead of ending the program; a second Ctrl-C ends it."""
    event = threading.Event()

    def interrupt(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def read_text(value: str) -> str:
    """An argument's text; ``-`` reads the standard input. Bytes that are no UTF-8 become U+FFFD."""
    import sys

    if value == "-":
        return sys.stdin.buffer.read().decode("utf-8", errors="replace")
    return os.fsencode(value).decode("utf-8", errors="replace")
