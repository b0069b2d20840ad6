"""``tallow devices``: what this machine computes on."""

from __future__ import annotations

import argparse
from typing import Any


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "devices", help="show what this machine computes on", description="Show what this machine computes on."
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the CPU's level and threads, and the GPUs."""
    from tallow import _cpu
    from tallow.device import cuda_device_count, cuda_trouble

    levels = _cpu.supported_levels()
    print(f"cpu     {_cpu.level()}, {_cpu.get_num_threads()} threads")
    print(f"        kernels for {', '.join(levels)}; TALLOW_CPU and TALLOW_NUM_THREADS choose others")
    for index in range(max(1, cuda_device_count())):
        trouble = cuda_trouble(index)
        print(f"cuda:{index}  {'ready' if trouble is None else trouble}")
    return 0
