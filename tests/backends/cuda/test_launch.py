"""Launches: what kernels are told, from any thread."""

import ctypes
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tallow as tl
from tallow import ops
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import needs_gpu, numbers

pytestmark = needs_gpu


def test_what_no_kernel_takes():
    from tallow.backends.cuda.kernels import function

    with pytest.raises(TypeError, match="kernels take arrays, integers and floats, not str"):
        function("positions", "next_positions")((1,), (32,), ("a", 1))


def launch_attributes(monkeypatch, act):
    """The numbers of the launch attributes (CUlaunchAttributeID) of each kernel that is launched."""
    from tallow.backends.cuda import kernels

    found, launch = [], kernels._launcher()

    def noted(config, *rest):
        *_, attributes, count = struct.unpack(
            kernels._CONFIG, ctypes.string_at(config, struct.calcsize(kernels._CONFIG))
        )
        found.append([ctypes.c_int.from_address(attributes + 72 * i).value for i in range(count)])
        return launch(config, *rest)

    monkeypatch.setattr(kernels, "_launcher", lambda: noted)
    act()
    return found


def draw():
    logits, lengths = Tensor(numbers(2, 3000)).to("cuda", "bfloat16"), Tensor(np.array([5, 5])).to("cuda")
    draws = Tensor(np.array([[1, 0, 5], [1, 1, 5]], np.uint64)).to("cuda")
    return lambda: ops.sample(logits, draws, lengths, temperature=1.0, top_k=20)


def test_blocks_that_wait_for_each_other_are_launched_together(monkeypatch):
    """In a recording too: else two streams share a GPU's room out, and neither goes on."""
    cooperative = 2  # CU_LAUNCH_ATTRIBUTE_COOPERATIVE
    sample = draw()
    assert launch_attributes(monkeypatch, sample) == [[cooperative]]
    assert launch_attributes(monkeypatch, lambda: Recording(sample, tl.Device("cuda"))) == [[cooperative]]


def test_sources_whose_blocks_wait_are_known():
    from tallow.backends.cuda import kernels

    folder = Path(kernels.__file__).parent
    waiting = {path.stem for path in folder.glob("*.cu") if re.search(r"while \([^;]*volatile", path.read_text())}
    assert waiting == set(kernels._WAITING_FOR_EACH_OTHER)


def test_streams_that_draw_at_once():
    import cupy

    def work(_):
        sample = draw()
        with cupy.cuda.Stream(non_blocking=True) as stream:
            found = [sample().tolist() for _ in range(20)]
            stream.synchronize()
        return found

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert all(found == results[0] for found in results)


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
