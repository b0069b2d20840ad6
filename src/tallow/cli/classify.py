"""``tallow classify``: which of some labels fits a sound."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

DEFAULT_MODEL = "laion/clap-htsat-unfused"
_BATCH = 16
_WIDTH = 30  # of the longest bar, in characters
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_DESCRIPTION = """
Say which of some labels fits each sound. Scores of a sound sum to 1 over all labels, so that one which fits nothing
still has a best: give a label for the rest, such as "something else".

Folders are searched for sounds, and the folders within. A file that cannot be read is told and left out, and the exit
status is 1.
"""
_EXAMPLES = """
examples:
  tallow classify storm.wav --labels "rain" "a dog barking" "thunder"
  tallow classify recordings/ --labels-file birds.txt --top 3 --format json
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    from tallow.cli.language import add_model_options

    parser = commands.add_parser(
        "classify",
        help="say which labels fit sounds",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sounds", nargs="+", metavar="SOUND", help="a file, or a folder of them; - reads one from the standard input"
    )
    parser.add_argument("--labels", nargs="*", default=[], metavar="LABEL", help="what there may be to hear")
    parser.add_argument("--labels-file", metavar="FILE", help="a label in each line")
    parser.add_argument("--template", default="This is a sound of {}.", metavar="TEXT",
                        help="the sentence that a label is put into (%(default)s)")  # fmt: skip
    parser.add_argument("--top", type=int, metavar="N", help="tell the best N labels only")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: a line for each sound (text)")
    add_model_options(parser, DEFAULT_MODEL)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Classify every sound."""
    from tallow.cli.files import Reading, find_files, opened
    from tallow.cli.language import load_model
    from tallow.cli.progress import count_bar
    from tallow.errors import ArgumentError

    labels = [*args.labels, *_lines(args.labels_file)]
    if not labels:
        args.parser.error("no labels; give --labels or --labels-file")
    if not all(label.strip() for label in labels):
        args.parser.error("an empty label")
    if args.top is not None and args.top < 1:
        args.parser.error(f"--top {args.top}; expected at least 1")
    files = find_files(args.sounds, "sounds")
    model = load_model(args)
    if not hasattr(model, "classify"):
        raise ArgumentError(f"{args.model} is a {type(model).__name__}, which does not classify sounds; name a CLAP")
    reading = Reading(
        lambda batch, progress: model.classify(
            [*map(opened, batch)], labels, template=args.template, progress=progress
        ),
        _BATCH,
    )
    with count_bar("sounds", len(files)) as count:
        for names, answers in reading.results(files, count):
            for name, answer in zip(names, answers, strict=True):
                _print(args.format, name, answer[: args.top], heading=len(files) > 1)
    return 1 if reading.failed else 0


def _lines(path: str | None) -> list[str]:
    if path is None:
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return [line.strip() for line in file if line.strip()]


def _print(format: str, name: str, answer: Any, *, heading: bool) -> None:
    if format == "json":
        scores = [{"label": label, "score": round(score, 6)} for label, score in answer]
        print(json.dumps({"file": name, "labels": scores}), flush=True)
        return
    if heading:
        print(os.fsencode(name).decode(errors="replace"))
    indent = "  " if heading else ""
    for label, score in answer:
        print(f"{indent}{score:6.1%} {bar(score) + ' ' if sys.stdout.isatty() else ''}{label}")
    sys.stdout.flush()


def bar(part: float) -> str:
    """A bar for a number from 0 to 1, to the eighth of a character, padded with spaces to the width of 1."""
    eighths = round(part * _WIDTH * 8)
    whole, rest = divmod(eighths, 8)
    return (_EIGHTHS[8] * whole + (_EIGHTHS[rest] if rest else "")).ljust(_WIDTH)
