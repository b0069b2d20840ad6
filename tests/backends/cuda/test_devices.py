"""Cards as devices: other libraries, other cards, other processes, interruptions."""

import signal
import subprocess
import sys

import numpy as np
import pytest

import tallow as tl
from tallow.device import cuda_device_count
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import error, needs_gpu, numbers
from tests.backends.cuda.test_models import qwen

pytestmark = needs_gpu
DTYPES = ["float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_cupy_shares_the_memory(dtype):
    import cupy

    x = tl.asarray([[1, 0, 1], [0, 1, 1]], dtype=dtype, device="cuda")
    theirs = cupy.from_dlpack(x)
    assert (theirs.data.ptr, theirs.dtype) == (x.storage.data.ptr, x.storage.dtype)
    theirs[0, 1] = 1
    assert x.tolist()[0] == [1, 1, 1]
    ours = tl.from_dlpack(theirs.T)
    assert ours.storage.data.ptr == theirs.data.ptr
    assert (ours.shape, ours.dtype, ours.device) == ((3, 2), x.dtype, x.device)
    assert tl.asarray(theirs).storage.data.ptr == theirs.data.ptr


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch_shares_the_memory(dtype):
    torch = pytest.importorskip("torch", reason="needs PyTorch beside the card")
    x = tl.asarray([[1, 0, 1], [0, 1, 1]], dtype=dtype, device="cuda")
    theirs = torch.from_dlpack(x)
    assert (theirs.data_ptr(), str(theirs.dtype)) == (x.storage.data.ptr, f"torch.{dtype}")
    theirs[0, 1] = 1
    torch.cuda.synchronize()
    assert x.tolist()[0] == [1, 1, 1]
    ours = tl.from_dlpack(theirs.T)
    assert (ours.storage.data.ptr, ours.dtype, ours.device) == (theirs.data_ptr(), x.dtype, x.device)
    assert ours.T.tolist() == theirs.tolist()
    with pytest.raises(tl.ArgumentError, match="copy=False"):
        tl.from_dlpack(theirs, device="cpu", copy=False)


def test_moving_to_where_it_lies_copies_nothing():
    x = tl.ones(3, device="cuda")
    assert x.to("cuda:0") is x
    assert x.to("cuda").storage.data.ptr == x.storage.data.ptr
    assert x.to("cuda:0", "bfloat16").dtype is tl.bfloat16


def test_memory_is_told_card_by_card():
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    before = tl.memory_info("cuda:0")
    x = tl.zeros(1 << 22, device="cuda")
    with_x = tl.memory_info(x.device)
    del x
    after = tl.memory_info("cuda")
    assert with_x.used - before.used == 1 << 24
    assert after.used == before.used
    assert after.kept - before.kept == 1 << 24
    assert after.total == before.total >= after.free
    with pytest.raises(tl.DeviceError, match="expected a GPU"):
        tl.memory_info("cpu")
    tl.synchronize("cpu")
    tl.synchronize("cuda:0")


@pytest.mark.skipif(cuda_device_count() < 2, reason="needs two cards")
def test_a_second_card():
    x, second = Tensor(numbers(300, 200)), tl.Device("cuda", 1)
    first, other = x.to("cuda:0"), x.to("cuda:1")
    assert other.device is second
    assert other.storage.device.id == 1
    assert np.array_equal(first.to("cuda:1").numpy(), x.numpy())
    assert np.array_equal(first.to("cuda:1", "bfloat16").to("cuda:0").float().numpy(), x.to("bfloat16").float().numpy())
    with pytest.raises(tl.DeviceError, match=r"cuda:0 and cuda:1|cuda:1 and cuda:0"):
        first + other
    assert (tl.exp(other) @ other.T).device is second
    assert tl.memory_info("cuda:1").used >= other.nbytes
    import cupy

    assert cupy.from_dlpack(other).device.id == 1
    assert tl.from_dlpack(cupy.from_dlpack(other)).device is second
    for dtype in (None, "bfloat16"):
        sides = []
        for device in ("cuda:0", "cuda:1"):
            model = qwen(device, dtype)
            sides.append(model.generate([[5, 9, 400], [1] * 90], max_tokens=20, temperature=0, ignore_eos=True))
        assert [answer.ids for answer in sides[0]] == [answer.ids for answer in sides[1]]
    moved = qwen("cuda:0").to("cuda:1")
    ids = tl.asarray([[1, 2, 3]])
    assert (
        error(moved.forward(ids, moved.new_cache(1, 8)), qwen("cpu").forward(ids, qwen("cpu").new_cache(1, 8))) <= 2e-5
    )


FORKED = """
import os
import tallow as tl

x = tl.ones(3, device="cuda")
pid = os.fork()
if pid == 0:
    for use in (lambda: tl.ones(3, device="cuda"), lambda: x + 1, lambda: x.numpy()):
        try:
            use()
            os._exit(1)
        except tl.DeviceError as error:
            print(error, flush=True)
    assert tl.ones(3, device="auto").device is tl.Device("cpu")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert (x + 1).tolist() == [2.0, 2.0, 2.0]
"""


def test_a_forked_process_is_told_what_to_do():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "multiprocessing's 'spawn'" in done.stdout.splitlines()[0]
    assert done.stdout.count("\n") == 3


def test_ctrl_c_while_recording():
    x = tl.ones((4, 4), device="cuda")

    def interrupted():
        y = x + 1
        signal.raise_signal(signal.SIGINT)
        return y * 2.0

    with pytest.raises(KeyboardInterrupt):
        Recording(interrupted, x.device)
    recording = Recording(lambda: x * 2.0, x.device)
    x[...] = 5.0
    assert recording.replay()[0].tolist() == [10.0] * 4
    session = qwen("cuda").session()
    options = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    expected = session.generate([3, 1, 4, 1, 5], **options).ids
    with session.generate([3, 1, 4, 9], stream=True, **options) as stream:
        next(stream, None)
    assert session.generate([3, 1, 4, 1, 5], **options).ids == expected
