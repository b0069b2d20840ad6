"""Launches: what kernels are told, from any thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tallow import ops
from tallow.tensor import Tensor
from tests.backends.cuda.card import needs_card

pytestmark = needs_card


def test_what_no_kernel_takes():
    from tallow.backends.cuda.kernels import function

    with pytest.raises(TypeError, match="kernels take arrays, integers and floats, not str"):
        function("positions", "next_positions")((1,), (32,), ("a", 1))


def test_threads_that_launch_at_once():
    import cupy

    def work(begin):
        with cupy.cuda.Stream(non_blocking=True) as stream:
            lengths = Tensor(np.arange(begin, begin + 5)).to("cuda")
            found = [ops.next_positions(lengths, n).numpy() for n in (1, 3) * 20]
            stream.synchronize()
        return [(begin + np.arange(5))[:, None] + np.arange(n) for n in (1, 3) * 20], found

    with ThreadPoolExecutor(8) as pool:
        for expected, found in pool.map(work, range(0, 8000, 100)):
            assert all(map(np.array_equal, expected, found))


def test_products_of_two_streams_at_once():
    """A product that is shared out by columns adds up in memory of its own."""
    import cupy

    weight = Tensor(np.random.default_rng(0).standard_normal((192, 8192), np.float32) / 90).to("cuda", "bfloat16")

    def work(seed):
        x = np.random.default_rng(seed).standard_normal((64, 8192), np.float32)
        with cupy.cuda.Stream(non_blocking=True) as stream:
            on_card = Tensor(x).to("cuda", "bfloat16")
            found = [ops.linear(on_card, weight).float().numpy() for _ in range(200)]
            stream.synchronize()
        return found

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            assert all(np.array_equal(found[0], each) for each in found)
