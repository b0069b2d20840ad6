"""Activations, softmax and argmax: every level against the reference, whatever the shape, strides and threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow import Tensor, _cpu, ops
from tallow.ops.dispatch import OPERATIONS

SPECIAL = np.float32([0.0, -0.0, 1e-42, -1e-42, 30.0, -30.0, 88.8, -88.8, 3e38, -3e38, np.nan, np.inf, -np.inf])
OPS = {
    "gelu": lambda op, x, y: op(x),
    "gelu by tanh": lambda op, x, y: op(x, "tanh"),
    "silu": lambda op, x, y: op(x),
    "relu": lambda op, x, y: op(x),
    "glu": lambda op, x, y: op(x, y),
    "glu by gelu": lambda op, x, y: op(x, y, "gelu_tanh"),
    "softmax": lambda op, x, y: op(x),
    "log_softmax": lambda op, x, y: op(x),
}


def laid_out(rng, rows, width, layout):
    """Numbers in C order, as half of wider rows, every second row, backwards, or column by column."""
    wide = (rng.standard_normal((2 * rows, 2 * width)) * 6).astype(np.float32)
    return {
        "plain": np.ascontiguousarray(wide[:rows, :width]),
        "half": wide[:rows, width:],
        "every second row": wide[::2, :width],
        "backwards": wide[rows - 1 :: -1, width - 1 :: -1] if rows and width else wide[:rows, :width],
        "by columns": np.asfortranarray(wide[:rows, :width]),
    }[layout]


@pytest.mark.parametrize("name", OPS)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 5),
    width=st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 513]),
    layout=st.sampled_from(["plain", "half", "every second row", "backwards", "by columns"]),
    seed=st.integers(0, 1000),
)
def test_every_level_against_the_reference(name, rows, width, layout, seed):
    rng = np.random.default_rng(seed)
    x, y = (Tensor(laid_out(rng, rows, width, layout)) for _ in range(2))
    call, operation = OPS[name], name.split()[0]
    expected = call(OPERATIONS[operation].reference, x, y).numpy()
    before = _cpu.level()
    try:
        for level in _cpu.supported_levels():
            _cpu.set_level(level)
            np.testing.assert_allclose(call(getattr(ops, operation), x, y).numpy(), expected, rtol=3e-6, atol=1e-6)
    finally:
        _cpu.set_level(before)


@pytest.mark.parametrize("name", ["gelu", "silu", "relu", "glu"])
def test_special_numbers(cpu_level, name):
    x = np.tile(SPECIAL, 3)[: 2 * len(SPECIAL) + 1]
    arguments = (Tensor(x), Tensor(np.ones_like(x)))[: 2 if name == "glu" else 1]
    found = getattr(ops, name)(*arguments).numpy()
    expected = OPERATIONS[name].reference(*arguments).numpy()
    finite = np.isfinite(x)  # where the formula itself is 0 · ∞ the two may differ
    np.testing.assert_allclose(found[finite], expected[finite], rtol=3e-6, atol=1e-6)
    assert np.isnan(found[np.isnan(x)]).all()
    assert np.isposinf(found[np.isposinf(x)]).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_rows_with_special_numbers(cpu_level, name):
    rows = np.zeros((7, 37), np.float32)
    rows[0, 5] = np.nan
    rows[1] = -np.inf
    rows[2, ::2] = -np.inf
    rows[3, 36] = np.inf
    rows[4] = 3e38
    rows[5, 20] = -3e38
    found, expected = getattr(ops, name)(Tensor(rows)).numpy(), OPERATIONS[name].reference(Tensor(rows)).numpy()
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("name", OPS)
def test_bits_do_not_depend_on_threads_or_neighbours(cpu_level, threads, name):
    rng = np.random.default_rng(5)
    x, y = (rng.standard_normal((70, 1003)).astype(np.float32) for _ in range(2))
    call, op = OPS[name], getattr(ops, name.split()[0])
    threads(1)
    expected = call(op, Tensor(x), Tensor(y)).numpy()
    threads(3)
    np.testing.assert_array_equal(call(op, Tensor(x), Tensor(y)).numpy(), expected)
    for row in (0, 33, 69):
        alone = call(op, Tensor(x[row : row + 1]), Tensor(y[row : row + 1])).numpy()
        np.testing.assert_array_equal(alone[0], expected[row])
    wide = Tensor(x.reshape(1, -1)), Tensor(y.reshape(1, -1))
    if name not in ("softmax", "log_softmax"):
        np.testing.assert_array_equal(call(op, *wide).numpy().reshape(x.shape), expected)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    width=st.sampled_from([1, 2, 15, 16, 17, 255, 256, 257, 513, 20000, 49152]),
    layout=st.sampled_from(["plain", "half", "every second row", "backwards", "by columns"]),
    special=st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 3e38]), max_size=3),
    seed=st.integers(0, 1000),
)
def test_argmax_at_every_level(rows, width, layout, special, seed):
    rng = np.random.default_rng(seed)
    x = np.round(laid_out(rng, rows, width, layout))  # many equals, of which the first counts
    for value in special:
        x[rng.integers(rows), rng.integers(width)] = value
    before = _cpu.level()
    try:
        for level in _cpu.supported_levels():
            _cpu.set_level(level)
            np.testing.assert_array_equal(ops.argmax(Tensor(x), axis=-1).numpy(), x.argmax(-1))
            np.testing.assert_array_equal(ops.argmax(Tensor(x), axis=1, keepdims=True).numpy()[:, 0], x.argmax(-1))
    finally:
        _cpu.set_level(before)
