"""``tallow info``: what a model is, and how much memory it takes."""

from __future__ import annotations

import argparse
from typing import Any

_DESCRIPTION = """
Show what a model is and how much memory it takes, without loading it. A model that is only on the Hugging Face hub is
downloaded.
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("info", help="show what a model is and the memory it takes", description=_DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a folder, an installed package, or a name on the hub")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="how weights are to be stored")
    parser.add_argument("--quantize", choices=("int8", "fp8", "int4"), help="store weights in fewer bits")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the model's kind, sizes and memory."""
    from tallow.cli.transcribe import full_name
    from tallow.device import CPU
    from tallow.hub.locate import resolve
    from tallow.models.checkpoint import open_checkpoint
    from tallow.models.estimate import estimate_checkpoint
    from tallow.runtime.memory import free_bytes

    checkpoint = open_checkpoint(resolve(full_name(args.model)))
    estimate = estimate_checkpoint(checkpoint, args.dtype, quantize=args.quantize)
    infos = [info for name in checkpoint.source.names() if (info := checkpoint.source.info(name)) is not None]
    print(f"model     {checkpoint.architecture}")
    print(f"files     {checkpoint.folder}")
    print(f"stored    {', '.join(sorted({str(info.dtype) for info in infos}))}")
    for name, value in checkpoint.config.items():
        if type(value) is int and not name.endswith("_id"):
            print(f"          {name} {value:,}")
    free = free_bytes(CPU)
    have = "" if free is None else f" of {_megabytes(free)} free"
    print(f"memory    {_megabytes(estimate.total)}{have}")
    for name, value in estimate._asdict().items():
        print(f"          {name} {_megabytes(value)}")
    return 0


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
