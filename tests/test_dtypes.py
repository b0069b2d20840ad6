import copy
import math
import pickle

import array_api_strict as xp
import ml_dtypes
import numpy as np
import pytest

import tallow as tl
from tallow import dtypes
from tallow.errors import DTypeError
from tests.arrays import ALL, FLOATS, INTEGERS, NARROW, NUMERIC

EVERY = (*ALL, *NARROW)


def of(name):
    return dtypes.as_dtype(name)


@pytest.mark.parametrize("a", ALL)
@pytest.mark.parametrize("b", ALL)
def test_promotion_follows_the_standard_where_it_says_something(a, b):
    try:
        expected = xp.result_type(getattr(xp, a), getattr(xp, b))
    except TypeError:
        return
    assert tl.result_type(of(a), of(b)).name == str(expected).split(".")[-1]


@pytest.mark.parametrize("a", EVERY)
@pytest.mark.parametrize("b", EVERY)
def test_promotion_is_the_same_for_operations_and_in_both_orders(a, b):
    x, y = tl.ones(2, dtype=a), tl.ones(2, dtype=b)
    try:
        expected = tl.result_type(x, y)
    except DTypeError:
        assert {of(a).kind, of(b).kind} == {"int", "uint"}
        with pytest.raises(DTypeError, match=r"multiply: u?int\d+ and u?int\d+ have no common type"):
            x * y
        return
    assert tl.result_type(of(b), of(a)) is expected
    assert (x * y).dtype is expected
    assert tl.where(x > 0, x, y).dtype is expected if of(a).kind != "complex" else True
    assert tl.concat([x, y]).dtype is expected
    assert tl.can_cast(x, expected)
    assert tl.can_cast(of(b), expected)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("int64", "float32", "float32"),
        ("uint64", "float16", "float16"),
        ("bool", "bfloat16", "bfloat16"),
        ("bfloat16", "float16", "float32"),
        ("bfloat16", "float64", "float64"),
        ("float64", "complex64", "complex128"),
        ("float16", "complex64", "complex64"),
        ("int64", "complex64", "complex64"),
        ("bool", "int8", "int8"),
        ("uint32", "int8", "int64"),
    ],
)
def test_mixed_kinds(a, b, expected):
    assert tl.result_type(of(a), of(b)) is of(expected)


def test_scalars_in_result_type():
    assert tl.result_type(tl.float64, 1, 2.5) is tl.float64
    assert tl.result_type(tl.int8, 2.5) is tl.float32
    assert tl.result_type(1j, tl.ones(1, dtype="float64")) is tl.complex128
    assert tl.result_type(tl.bool, True) is tl.bool
    assert tl.result_type(tl.int8) is tl.int8
    for bad in ((), (1,), (1.0, 2)):
        with pytest.raises(DTypeError, match="result_type: at least one tensor or dtype"):
            tl.result_type(*bad)
    with pytest.raises(DTypeError, match="uint64 and int8 have no common type"):
        tl.result_type(tl.uint64, tl.int8)


def test_can_cast():
    assert tl.can_cast(tl.int8, tl.int64) is True
    assert tl.can_cast(tl.int64, tl.int8) is False
    assert tl.can_cast(tl.uint8, tl.int16)
    assert not tl.can_cast(tl.uint64, tl.int64)
    assert tl.can_cast(tl.bfloat16, tl.float32)
    assert not tl.can_cast(tl.bfloat16, tl.float16)
    assert not tl.can_cast(tl.int32, tl.bool)
    assert tl.can_cast(tl.ones(1), tl.complex64)


@pytest.mark.parametrize("name", [*FLOATS, *NARROW])
def test_finfo(name):
    info, other = tl.finfo(of(name)), ml_dtypes.finfo(of(name).numpy)
    assert info.dtype is of(name)
    assert (info.bits, info.max, info.min) == (other.bits, float(other.max), float(other.min))
    assert (info.eps, info.smallest_normal) == (float(other.eps), float(other.smallest_normal))
    assert all(type(value) is float for value in (info.eps, info.max, info.min, info.smallest_normal))
    assert tl.finfo(tl.ones(1, dtype=name)) == info


def test_finfo_of_complex_types_and_others():
    assert tl.finfo(tl.complex64) == tl.finfo(tl.float32)
    assert tl.finfo("complex128").bits == 64
    with pytest.raises(DTypeError, match="finfo: expected a floating-point type, found int8"):
        tl.finfo(tl.int8)
    assert not math.isinf(tl.finfo(tl.float64).max)


@pytest.mark.parametrize("name", INTEGERS)
def test_iinfo(name):
    info, other = tl.iinfo(of(name)), np.iinfo(name)
    assert (info.bits, info.max, info.min, info.dtype) == (other.bits, other.max, other.min, of(name))
    assert tl.iinfo(tl.ones(1, dtype=name)) == info


def test_iinfo_of_others():
    for name in ("bool", "float32"):
        with pytest.raises(DTypeError, match=f"iinfo: expected an integer type, found {name}"):
            tl.iinfo(of(name))


@pytest.mark.parametrize("name", EVERY)
def test_isdtype(name):
    kinds = {
        "bool": name == "bool",
        "signed integer": name.startswith("int"),
        "unsigned integer": name.startswith("uint"),
        "integral": "int" in name,
        "real floating": "float" in name,
        "complex floating": "complex" in name,
        "numeric": name in (*NUMERIC, *NARROW),
    }
    for kind, expected in kinds.items():
        assert tl.isdtype(of(name), kind) is expected
    assert tl.isdtype(of(name), of(name)) is True
    assert tl.isdtype(of(name), (tl.float32, "bool")) is (name in ("float32", "bool"))
    assert tl.isdtype(of(name), ()) is False


def test_isdtype_knows_its_kinds():
    with pytest.raises(DTypeError, match="isdtype: no kind 'float'; there are 'bool', 'signed integer'"):
        tl.isdtype(tl.float32, "float")


@pytest.mark.parametrize("name", EVERY)
def test_types_are_single_objects(name):
    dtype = of(name)
    assert repr(dtype) == f"tallow.{name}"
    assert getattr(tl, name) is dtype
    assert dtypes.of_numpy(dtype.numpy) is dtype
    assert of(dtype.numpy) is of(np.zeros(1, dtype.numpy).dtype.type) is dtype
    for again in (pickle.loads(pickle.dumps(dtype)), copy.copy(dtype), copy.deepcopy(dtype)):
        assert again is dtype
    assert dtype.itemsize == dtype.numpy.itemsize
    assert dtype.is_floating == ("float" in name)
    assert len({dtype, of(name)}) == 1


def test_other_names_of_types():
    names = {"f32": tl.float32, "bf16": tl.bfloat16, "f16": tl.float16, "half": tl.float16, "f64": tl.float64}
    for name, dtype in (*names.items(), (bool, tl.bool), (int, tl.int64), (float, tl.float32), (complex, tl.complex64)):
        assert of(name) is dtype
    for bad in ("float8", "i4x", object(), str, None, 3, np.dtype("U3"), np.longdouble):
        with pytest.raises(DTypeError, match=r"Tallow has bool, int8"):
            of(bad)
