"""``tallow convert``: a language model from one file format into another."""

from __future__ import annotations

import argparse
from typing import Any

_DESCRIPTION = """
Write a language model as a GGUF file, which llama.cpp reads, or as a folder of safetensors, which Transformers reads.
"""
_EXAMPLES = """
examples:
  tallow convert Qwen/Qwen3-0.6B qwen3.gguf --storage q8_0
  tallow convert model.gguf folder --storage bfloat16
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="write a language model in another format",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a GGUF file, a folder, an installed package, or a name on the hub"
    )
    parser.add_argument("target", metavar="TARGET", help="a file *.gguf, or a folder")
    parser.add_argument(
        "--storage", metavar="TYPE",
        help="float32, float16, bfloat16; for GGUF also q8_0, q5_1, q5_0, q4_1, q4_0 (as the model is stored)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert the model."""
    from tallow.convert import convert

    convert(args.model, args.target, args.storage)
    return 0
