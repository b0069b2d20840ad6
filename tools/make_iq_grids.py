"""Writes src/tallow/matrix/blocks/iq_grids.py from the codebooks in the `gguf` package (pip install gguf).

The codebooks of the IQ formats were found by search when the formats were made; nothing shorter defines them. Each is
packed here to two bits an entry (three for IQ3) and written in base 85.
"""

import base64
from pathlib import Path

import numpy as np
from gguf import quants

HEAD = '''"""The codebooks of GGUF's IQ formats: what an index in a block stands for. Written by tools/make_iq_grids.py.

The tables are part of the formats: ggml's ``iq2xxs_grid`` and its like (github.com/ggml-org/ggml, MIT licence,
copyright 2023-2026 the ggml authors). Here each row's entries are indices into a short list of values, packed from the
lowest bit on and written in base 85.
"""

from __future__ import annotations

import base64
import functools
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@functools.cache
def grid(name: str) -> Array:
    """The codebook of a format, float32 (entries, values in an entry)."""
    rows, width, values, text = GRIDS[name]
    size = (len(values) - 1).bit_length()
    packed = np.frombuffer(base64.b85decode(text), dtype=np.uint8)
    flags = np.unpackbits(packed, bitorder="little")[: rows * width * size].reshape(rows, width, size)
    codes = (flags << np.arange(size, dtype=np.uint8)).sum(axis=-1)
    return np.array(values, dtype=np.float32)[codes]  # type: ignore[no-any-return]


# name: entries, values in an entry, the values, the entries' indices
GRIDS: dict[str, tuple[int, int, tuple[int, ...], str]] = {
'''


def packed(name: str) -> str:
    kind = getattr(quants, name)
    kind.init_grid()
    rows, width = kind.grid_shape
    codes = np.searchsorted(np.array(kind.grid_map), kind.grid.reshape(rows, width)).astype(np.uint8)
    size = (len(kind.grid_map) - 1).bit_length()
    flags = (codes[..., None] >> np.arange(size, dtype=np.uint8)) & 1
    text = base64.b85encode(np.packbits(flags.ravel(), bitorder="little").tobytes()).decode()
    lines = "\n".join(f'        "{text[i : i + 104]}"' for i in range(0, len(text), 104))
    return f'    "{name.lower()}": (\n        {rows}, {width}, {tuple(kind.grid_map)},\n{lines},\n    ),\n'


if __name__ == "__main__":
    body = "".join(packed(name) for name in ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"))
    target = Path(__file__).parents[1] / "src/tallow/matrix/blocks/iq_grids.py"
    target.write_text(HEAD + body + "}  # fmt: skip\n")
