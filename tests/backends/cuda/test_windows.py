"""Attention in a sliding window, by every kernel that has one."""

import numpy as np
import pytest

from tallow.tensor import Tensor
from tests.backends.cuda.gpu import needs_gpu, numbers
from tests.backends.cuda.test_attention import attention_kernels  # noqa: F401
from tests.backends.cuda.test_kernels import DTYPES, check, poisoned  # noqa: F401

pytestmark = needs_gpu


def check_window(dtype, b, n, m, heads, d, window, lengths, masked=False, turned=False):
    """Causal attention in a window, where what no query sees is no number."""
    q, k, v = (numbers(b, size, count, d, seed=i)
               for i, (size, count) in enumerate([(n, heads[0]), (m, heads[1]), (m, heads[1])]))  # fmt: skip
    for row, length in enumerate(lengths):
        for x in (k, v):
            x[row, : max(0, length - (n - 1) - window)] = np.nan
            x[row, length:] = np.nan
    mask, angles = numbers(n, m, seed=4), numbers(1, n, d // 2, seed=3)

    def run(op, q, k, v):
        place = q.device
        rotary = tuple(Tensor(turn(angles)).to(place) for turn in (np.cos, np.sin)) if turned else None
        return op(
            q, k, v, causal=True, lengths=Tensor(np.array(lengths)).to(place), window=window, rotary=rotary,
            mask=Tensor(mask).to(place) if masked else None,
        )  # fmt: skip

    check("attention", run, q, k, v, dtype=dtype, tolerance=2)


@pytest.mark.usefixtures("attention_kernels")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(4, 2), (3, 3)])
@pytest.mark.parametrize("d", [24, 64, 128])
@pytest.mark.parametrize("window", [1, 7, 64, 100, 700])
@pytest.mark.parametrize("n", [1, 3, 70, 130])
def test_windows(dtype, n, window, d, heads):
    check_window(dtype, 3, n, 300, heads, d, window, [300, 140, 0])
    check_window(dtype, 1, n, 300, heads, d, window, [290], masked=True)


@pytest.mark.usefixtures("attention_kernels")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("d", [64, 128])
@pytest.mark.parametrize("window", [1, 64, 90])
def test_windows_of_what_is_turned(dtype, window, d):
    check_window(dtype, 2, 200, 200, (4, 2), d, window, [200, 150], turned=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [50, 600])
def test_windows_of_long_rows_are_split_among_blocks(dtype, window):
    check_window(dtype, 2, 3, 1300, (4, 2), 64, window, [700, 1300])
