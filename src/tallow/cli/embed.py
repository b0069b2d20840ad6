"""``tallow embed``: vectors for photos, sounds or texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

DEFAULT_MODELS = {
    "photos": "facebook/dinov3-vits16-pretrain-lvd1689m",
    "sounds": "laion/clap-htsat-unfused",
    "texts": "Qwen/Qwen3-Embedding-0.6B",
}
_BATCHES = {"photos": 64, "sounds": 64}  # files between two entries in the journal
_DESCRIPTION = f"""
Make vectors of length 1 whose products say how alike photos, sounds or texts are. They are printed as JSON, one line
for each, or written to a file.

Folders are searched for photos or sounds, and the folders within. A file that cannot be read is told and left out, and
the exit status is 1. A run with --out that was interrupted goes on where it stopped when it is repeated. Beside
vectors.npy, vectors.npy.txt names the file of each row.

The default models are {DEFAULT_MODELS["photos"]},
{DEFAULT_MODELS["sounds"]} and {DEFAULT_MODELS["texts"]}. A CLAP makes vectors of texts, too, to be
compared with those of sounds.
"""
_EXAMPLES = """
examples:
  tallow embed holidays/ --out photos.npy
  tallow embed --audio rain.wav recordings/ --out sounds.parquet
  tallow embed --text "a dog barks" --text "rain on a roof"
  tallow embed --text-file sentences.txt --out vectors.npy
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    from tallow.cli.language import add_model_options

    parser = commands.add_parser(
        "embed",
        help="make vectors of photos, sounds or texts",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "photos", nargs="*", metavar="PHOTO", help="a file, or a folder of them; - reads one from the standard input"
    )
    parser.add_argument("--audio", nargs="+", default=[], metavar="SOUND", help="files, folders of them, or -")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="may be repeated")
    parser.add_argument("--text-file", metavar="FILE", help="a text in each line; - reads the standard input")
    parser.add_argument("--out", metavar="FILE", help="*.npy, *.parquet or *.jsonl; else JSON on the standard output")
    photos = parser.add_argument_group("photos")
    photos.add_argument("--fast-decode", action="store_true", help="decode large JPEGs at a part of their size")
    texts = parser.add_argument_group("texts")
    texts.add_argument("--instruction", metavar="TEXT", help="what the texts are queries for")
    texts.add_argument("--dims", type=int, metavar="N", help="keep the first N dimensions")
    texts.add_argument("--truncate", action="store_true", help="cut texts that are too long")
    add_model_options(parser, None)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Embed everything."""
    from tallow.cli.language import read_text
    from tallow.cli.vectors import FORMATS, check_output

    texts = [*map(read_text, args.text), *_lines(args.text_file)]
    given = {"photos": args.photos, "sounds": args.audio, "texts": texts}
    kinds = [kind for kind, values in given.items() if values]
    if not kinds:
        args.parser.error("nothing to embed; give photos, --audio, --text or --text-file")
    if len(kinds) > 1:
        args.parser.error(f"{' and '.join(kinds)} at once; run the command for each")
    kind = kinds[0]
    if args.out and not args.out.endswith(FORMATS):
        args.parser.error(f"--out writes *.npy, *.parquet or *.jsonl, not {args.out}")
    for name, of in (("fast_decode", "photos"), ("instruction", "texts"), ("dims", "texts"), ("truncate", "texts")):
        if getattr(args, name) not in (None, False) and kind != of:
            args.parser.error(f"--{name.replace('_', '-')} is for {of}")
    args.model = args.model or DEFAULT_MODELS[kind]
    if args.out:
        check_output(args.out)
    return _embed_texts(args, texts) if kind == "texts" else _embed_files(args, kind, given[kind])


def _embed_texts(args: argparse.Namespace, texts: list[str]) -> int:
    from tallow.cli.language import load_model
    from tallow.cli.vectors import json_line, write
    from tallow.errors import ArgumentError

    model = load_model(args)
    if hasattr(model, "embed_text"):
        if args.instruction is not None or args.dims is not None:
            raise ArgumentError(f"{args.model} is a {type(model).__name__}, which takes no --instruction and no --dims")
        vectors = model.embed_text(texts, truncate=args.truncate).numpy()
    elif hasattr(model, "generate"):
        options = {"instruction": args.instruction, "dims": args.dims, "truncate": args.truncate}
        vectors = model.embed(texts, **options).numpy()
    else:
        raise ArgumentError(f"{args.model} is a {type(model).__name__}, which makes no vectors of texts")
    rows = list(zip(texts, vectors, strict=True))
    if args.out:
        write(args.out, "text", rows, len(rows))
    else:
        for text, vector in rows:
            print(json_line("text", text, vector))
    return 0


def _lines(path: str | None) -> Iterator[str]:
    if path is None:
        return
    with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
        for line in file:
            text = line.decode("utf-8", errors="replace").rstrip("\r\n")
            if text:
                yield text


def _embed_files(args: argparse.Namespace, kind: str, paths: list[str]) -> int:
    from tallow.cli.files import find_files
    from tallow.cli.journal import Journal
    from tallow.cli.progress import count_bar
    from tallow.cli.vectors import json_line, write
    from tallow.errors import ArgumentError, MediaError

    files = find_files(paths, kind)
    if args.out is None:
        reading = _reading(args, kind)
        with count_bar(kind, len(files)) as count:
            for names, vectors in reading.results(files, count):
                for name, vector in zip(names, vectors, strict=True):
                    print(json_line("file", name, vector), flush=True)
        return 1 if reading.failed else 0
    if args.out.endswith(".npy") and any("\n" in name for name in files):
        raise ArgumentError(f"a file's name has a line break, which {args.out}.txt cannot hold; write *.jsonl instead")
    options = ("model", "dtype", "quantize", "fast_decode")
    settings = {"kind": kind} | {name: getattr(args, name) for name in options}
    with Journal(args.out, settings) as journal:
        left = [name for name in files if not journal.has(name)]
        reading = _reading(args, kind) if left else None
        try:
            with count_bar(kind, len(left)) as count:
                for names, vectors in reading.results(left, count) if reading else ():
                    journal.add(names, vectors)
        except KeyboardInterrupt:
            kept = sum(map(journal.has, files))
            print(f"{kept} of {len(files)} {kind} are done; the same command goes on from there", file=sys.stderr)
            raise
        good = [name for name in files if journal.has(name)]
        if not good:
            journal.remove()
            raise MediaError(f"{args.out} was not written: not one of {len(files)} {kind} can be read")
        write(args.out, "file", journal.vectors(good), len(good))
        journal.remove()
    return 1 if reading and reading.failed else 0


def _reading(args: argparse.Namespace, kind: str) -> Any:
    """What makes vectors of files, by the model that the arguments name."""
    from tallow.cli.files import Reading, Streaming, opened
    from tallow.cli.language import load_model
    from tallow.errors import ArgumentError

    model = load_model(args)
    method = "embed_audio" if kind == "sounds" else "embed"
    if not hasattr(model, method) or (kind == "photos" and hasattr(model, "generate")):
        raise ArgumentError(f"{args.model} is a {type(model).__name__}, which makes no vectors of {kind}")
    if kind == "photos":
        return Streaming(
            lambda files: model.stream([*map(opened, files)], fast_decode=args.fast_decode), _BATCHES[kind]
        )
    return Reading(
        lambda files, progress: model.embed_audio([*map(opened, files)], progress=progress).numpy(), _BATCHES[kind]
    )
