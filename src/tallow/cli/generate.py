"""``tallow generate``: go on with a text."""

from __future__ import annotations

import argparse
import sys
from typing import Any

_DESCRIPTION = """
Go on with a text, and print what is written as it comes. Chat models answer better to 'tallow chat'.
"""
_EXAMPLES = """
examples:
  tallow generate --max-tokens 40 --temperature 0 "Once upon a time"
  tallow generate --model model.gguf --schema person.json "A person, as JSON: "
  git diff | tallow generate --max-tokens 60 -
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    from tallow.cli.language import add_model_options, add_sampling_options

    parser = commands.add_parser(
        "generate",
        help="go on with a text",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prompt", metavar="PROMPT", help="the text to go on with; - reads it from the standard input")
    add_model_options(parser)
    add_sampling_options(parser, max_tokens=256)
    parser.add_argument("--ignore-eos", action="store_true", help="go on where the model would end")
    parser.add_argument("--truncate", action="store_true", help="cut a prompt that is too long, keeping its end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write one answer."""
    from tallow.cli.language import (
        interruptible,
        load_language_model,
        print_answer,
        read_text,
        sampling_options,
        statistics,
    )

    prompt = read_text(args.prompt)
    model = load_language_model(args)
    with interruptible() as cancel:
        options = sampling_options(args) | {"ignore_eos": args.ignore_eos, "truncate": args.truncate}
        result = print_answer(model.generate(prompt, stream=True, cancel=cancel, **options))
    print(flush=True)
    if args.stats:
        print(statistics(result), file=sys.stderr)
    if result.finish_reason == "cancelled":
        raise KeyboardInterrupt
    return 0
