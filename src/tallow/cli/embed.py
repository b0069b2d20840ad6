"""``tallow embed``: vectors for texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

DEFAULT_TEXT_MODEL = "Qwen/Qwen3-Embedding-0.6B"
_DESCRIPTION = """
Make vectors of length 1 whose products say how much texts have in common. They are printed as JSON, one line for each,
or written to a NumPy file.
"""
_EXAMPLES = """
examples:
  tallow embed --text "a dog barks" --text "rain on a roof"
  tallow embed --text-file sentences.txt --out vectors.npy
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    from tallow.cli.language import add_model_options

    parser = commands.add_parser(
        "embed",
        help="make vectors of texts",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="may be repeated")
    parser.add_argument("--text-file", metavar="FILE", help="a text in each line; - reads the standard input")
    parser.add_argument("--instruction", metavar="TEXT", help="what the texts are queries for")
    parser.add_argument("--dims", type=int, metavar="N", help="keep the first N dimensions")
    parser.add_argument("--out", metavar="FILE", help="*.npy or *.jsonl; else JSON on the standard output")
    parser.add_argument("--truncate", action="store_true", help="cut texts that are too long")
    add_model_options(parser, DEFAULT_TEXT_MODEL)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Embed every text."""
    from tallow.cli.language import load_language_model, read_text

    texts = [*map(read_text, args.text), *_lines(args.text_file)]
    if not texts:
        args.parser.error("nothing to embed; give --text or --text-file")
    if args.out and not args.out.endswith((".npy", ".jsonl")):
        args.parser.error(f"--out writes *.npy or *.jsonl, not {args.out}")
    model = load_language_model(args)
    vectors = model.embed(texts, instruction=args.instruction, dims=args.dims, truncate=args.truncate).numpy()
    _write(args.out, texts, vectors)
    return 0


def _lines(path: str | None) -> Iterator[str]:
    if path is None:
        return
    with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
        for line in file:
            text = line.decode("utf-8", errors="replace").rstrip("\r\n")
            if text:
                yield text


def _write(path: str | None, texts: list[str], vectors: Any) -> None:
    import json

    import numpy as np

    if path is not None and path.endswith(".npy"):
        np.save(path, vectors)
        return
    lines = (
        json.dumps({"text": text, "vector": [round(float(x), 7) for x in row]}, ensure_ascii=False)
        for text, row in zip(texts, vectors, strict=True)
    )
    if path is None:
        for line in lines:
            print(line)
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
