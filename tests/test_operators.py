import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallow as tl
from tallow.errors import DTypeError, ShapeError
from tallow.ops import dispatch
from tests.arrays import FLOATS, INTEGERS, NUMERIC, assert_same, few, pairs

ARITHMETIC = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
}
BITWISE = {
    "and_": "bitwise_and",
    "or_": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}
COMPARISONS = {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}


def same(result, expected):
    assert_same(result, expected.numpy())


@pytest.mark.parametrize("symbol", [*ARITHMETIC, *BITWISE, *COMPARISONS])
@given(data=st.data())
@few
def test_operators_are_the_functions(symbol, data):
    dtypes = INTEGERS if symbol in BITWISE else FLOATS
    x, y = data.draw(pairs(dtypes))
    if "shift" in symbol:
        y = np.where((y < 0) | (y > 7), y.dtype.type(1), y)
    function = getattr(tl, {**ARITHMETIC, **BITWISE, **COMPARISONS}[symbol])
    infix, a, b = getattr(operator, symbol), tl.asarray(x), tl.asarray(y)
    same(infix(a, b), function(a, b))
    scalar = 2 if symbol in BITWISE else 1.5
    same(infix(a, scalar), function(a, scalar))
    same(infix(scalar, b), function(scalar, b))


@pytest.mark.parametrize("symbol", [*ARITHMETIC, *BITWISE])
@given(data=st.data())
@few
def test_in_place_operators_write_into_the_tensors_memory(symbol, data):
    x, y = data.draw(pairs(INTEGERS if symbol in BITWISE else FLOATS))
    if "shift" in symbol:
        y = np.where((y < 0) | (y > 7), y.dtype.type(1), y)
    function, infix = getattr(tl, {**ARITHMETIC, **BITWISE}[symbol]), getattr(operator, f"i{symbol.strip('_')}")
    a, b = tl.asarray(x.copy()), tl.asarray(y)
    expected = function(a, b)
    view = a[...]
    if expected.shape != a.shape:
        with pytest.raises(ShapeError, match="in place: the result's shape"):
            infix(a, b)
        return
    result = infix(a, b)
    assert result is a
    with np.errstate(all="ignore"):
        assert_same(a, expected.numpy().astype(x.dtype))
    assert_same(view, a.numpy())


def test_in_place_on_parts_and_with_scalars():
    x = tl.zeros((2, 3))
    x[0] += 2
    x[:, 1] *= 3
    x -= 1
    x /= 2
    assert x.tolist() == [[0.5, 2.5, 0.5], [-0.5, -0.5, -0.5]]
    whole = tl.asarray([7, -7])
    whole //= 2
    whole **= 2
    whole %= 10
    whole |= 4
    assert whole.tolist() == [13, 6]
    square = tl.eye(2)
    square @= square * 2
    assert square.tolist() == [[2, 0], [0, 2]]
    half = tl.ones(2, dtype="bfloat16")
    half += tl.ones(2)
    assert half.dtype is tl.bfloat16
    assert half.tolist() == [2, 2]


def test_in_place_keeps_the_type():
    x = tl.asarray([1, 2])
    with pytest.raises(DTypeError, match="add in place: a float32 result does not fit into int64"):
        x += 0.5
    with pytest.raises(DTypeError, match="divide in place: a float32 result does not fit into int64"):
        x /= 2
    y = tl.ones(1)
    with pytest.raises(DTypeError, match="complex64 result does not fit into float32"):
        y *= 1j
    assert x.tolist() == [1, 2]


@given(data=st.data())
@few
def test_unary_operators(data):
    x, _ = data.draw(pairs(NUMERIC))
    a = tl.asarray(x)
    same(-a, tl.negative(a))
    same(+a, tl.positive(a))
    same(abs(a), tl.abs(a))
    if x.dtype.kind in "iu":
        same(~a, tl.bitwise_invert(a))


@pytest.mark.parametrize("other", ["text", None, object(), [1, 2], {"a": 1}])
def test_other_types_are_left_to_python(other):
    x = tl.ones(2)
    for infix in (operator.add, operator.matmul, operator.lt, operator.and_, operator.iadd):
        with pytest.raises(TypeError):
            infix(x, other)
        if not (type(other) is list and infix is operator.iadd):  # which appends the elements
            with pytest.raises(TypeError):
                infix(other, x)
    assert (x == other) is False
    assert (x != other) is True


def test_a_class_may_take_the_other_side():
    class Other:
        def __radd__(self, left):
            return "taken"

    assert tl.ones(2) + Other() == "taken"


def test_everything_passes_through_dispatch():
    seen = []

    def observer(op, args, kwargs, run):
        seen.append(op.name)
        return run()

    dispatch.add_observer(observer)
    try:
        x = tl.ones((2, 2))
        y = (x + 1) @ x.T
        y[0] = 2 * x[1]
        y -= x.exp().sum(0)
        -y.reshape(4)
        bool((y == x).any())
        list(y)
    finally:
        dispatch.remove_observer(observer)
    expected = """ones add matrix_transpose matmul getitem multiply setitem exp sum subtract setitem reshape negative
        equal any unstack""".split()  # noqa: SIM905
    assert [name for name in seen if name in expected] == expected
