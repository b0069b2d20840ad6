"""Copies from one arrangement into another, bit by bit."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallow as tl
from tallow import ops
from tallow.errors import ShapeError
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import needs_gpu, on_both

pytestmark = needs_gpu
DTYPES = ["bool", "int8", "bfloat16", "float32", "int64", "complex128"]
some = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def counted(*shape, dtype):
    return on_both(np.arange(int(np.prod(shape))).reshape(shape) % 251, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@some
def test_any_view_without_gaps(dtype, data):
    shape = data.draw(st.lists(st.integers(1, 9), max_size=7).filter(lambda s: np.prod(s) < 5000))
    order = data.draw(st.permutations(range(len(shape))))
    steps = [data.draw(st.sampled_from([1, 1, 2, -1])) for _ in shape]
    begins = [data.draw(st.integers(0, n - 1 if step < 0 else n)) for n, step in zip(shape, steps, strict=True)]
    cut = tuple(slice(begin, None, step) for begin, step in zip(begins, steps, strict=True))
    expected, view = (x[cut].permute(*order) for x in counted(*shape, dtype=dtype))
    without, copy = ops.contiguous(view), ops.copy(view)
    assert without.tolist() == expected.tolist()
    view.storage[...] = 0
    assert copy.tolist() == expected.tolist()
    assert without.storage.flags.c_contiguous
    assert copy.storage.flags.c_contiguous


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=st.integers(0, 5), widths=st.lists(st.integers(0, 40), min_size=1, max_size=4), axis=st.integers(-2, 1))
@some
def test_concat(dtype, rows, widths, axis):
    parts = [counted(*((rows, width) if axis % 2 else (width, rows)), dtype=dtype) for width in widths]
    cpu, card = (ops.concat(list(side), axis=axis) for side in zip(*parts, strict=True))
    assert card.shape == cpu.shape
    assert card.dtype is cpu.dtype
    assert card.tolist() == cpu.tolist()


def test_concat_of_what_is_repeated_or_of_several_types():
    cpu, card = counted(1, 1, 24, dtype="float16")
    other = counted(3, 5, 24, dtype="float32")
    for side in ((cpu, other[0]), (card, other[1])):
        assert ops.concat([side[0].expand(3, 2, 24), side[1]], axis=1).tolist() == np.concatenate(
            [np.broadcast_to(cpu.float().numpy(), (3, 2, 24)), other[0].numpy()], axis=1
        ).tolist()  # fmt: skip


def test_concat_of_what_does_not_fit():
    x, y = (Tensor(np.zeros(shape, np.float32)).to("cuda") for shape in ((2, 3), (3, 2)))
    with pytest.raises(ShapeError, match="differ elsewhere"):
        tl.concat([x, y])
