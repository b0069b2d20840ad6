import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tallow import ops
from tallow.errors import ShapeError
from tallow.tensor import Tensor
from tests.ops.both import both


@both("next_positions")
@given(st.lists(st.integers(0, 1000), min_size=0, max_size=5), st.integers(0, 6), st.data())
def test_next_positions_follow_what_rows_hold(op, lengths, n, data):
    counts = data.draw(st.none() | st.lists(st.integers(0, n), min_size=len(lengths), max_size=len(lengths)))
    held = Tensor(np.array(lengths, np.int64))
    added = None if counts is None else Tensor(np.array(counts, np.int64))
    expected = [
        [max(length + (n if counts is None else counts[row]) - n + i, 0) for i in range(n)]
        for row, length in enumerate(lengths)
    ]
    result = op(held, n, added).numpy()
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, np.array(expected, np.int64).reshape(len(lengths), n))


@both("rotary_angles")
@given(
    arrays.arrays(np.int64, arrays.array_shapes(max_dims=2, min_side=0, max_side=40), elements=st.integers(0, 2**20)),
    st.integers(0, 40),
)
def test_rotary_angles(op, positions, pairs):
    frequencies = (10000.0 ** -(np.arange(pairs) / max(pairs, 1))).astype(np.float32)
    angles = (positions[..., None].astype(np.float32) * frequencies).astype(np.float64)
    cos, sin = (x.numpy() for x in op(Tensor(positions), Tensor(frequencies), 1.5))
    assert cos.shape == sin.shape == (*positions.shape, pairs)
    np.testing.assert_allclose(cos, 1.5 * np.cos(angles), rtol=0, atol=2e-7)
    np.testing.assert_allclose(sin, 1.5 * np.sin(angles), rtol=0, atol=2e-7)


def test_counts_that_do_not_fit():
    with pytest.raises(ShapeError, match="next_positions"):
        ops.next_positions(Tensor(np.zeros(2, np.int64)), 1, Tensor(np.zeros(3, np.int64)))
