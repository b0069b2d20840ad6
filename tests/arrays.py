"""Arrays of every type and shape for both sides of a comparison: Tallow's, and array_api_strict's or NumPy's."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tallow as tl
from tallow.tensor import Tensor

SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = SIGNED + UNSIGNED
FLOATS = ("float32", "float64")
NARROW = ("float16", "bfloat16")
COMPLEX = ("complex64", "complex128")
REAL = INTEGERS + FLOATS
NUMERIC = REAL + COMPLEX
ALL = ("bool", *NUMERIC)

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def storage(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4) -> st.SearchStrategy[Any]:
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def arrays(
    dtypes: Any, shape: Any = None, *, finite: bool = False, nan: bool = True, limit: float | None = None
) -> st.SearchStrategy[Any]:
    """NumPy arrays of one of these types, without NaN or infinities or above a limit (floats only) if so wished.

    Values for bfloat16 are drawn as float32 and rounded.
    """
    names = (dtypes,) if isinstance(dtypes, str) else dtypes
    where = shapes() if shape is None else shape

    def of(name: str) -> st.SearchStrategy[Any]:
        if name == "bfloat16":
            return of("float32").map(lambda x: x.astype(storage(name)))
        elements: dict[str, Any] = {}
        if np.dtype(name).kind in "fc":
            if finite or limit is not None:
                elements = {"allow_nan": False, "allow_infinity": False}
            elif not nan:
                elements = {"allow_nan": False}
        if limit is not None:
            elements |= {"f": {"min_value": -limit, "max_value": limit}, "c": {"max_magnitude": limit}}.get(
                np.dtype(name).kind, {}
            )
        return hnp.arrays(name, where, elements=elements or None)

    return st.sampled_from(names).flatmap(of)


def promotable(dtypes: tuple[str, ...]) -> st.SearchStrategy[tuple[str, str]]:
    """Two types of one kind (signed and unsigned integers count as one) that have a common type."""

    def fits(pair: tuple[str, str]) -> bool:
        a, b = map(np.dtype, pair)
        kinds = {a.kind, b.kind}
        return len(kinds) == 1 or (kinds == {"i", "u"} and "uint64" not in pair)

    return st.sampled_from([(a, b) for a in dtypes for b in dtypes if fits((a, b))])


@st.composite
def pairs(draw: Any, dtypes: tuple[str, ...], **options: Any) -> tuple[Any, Any]:
    """Two arrays of types with a common one, and of shapes that broadcast."""
    first, second = draw(promotable(dtypes))
    both = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3, min_side=0)).input_shapes
    return draw(arrays(first, both[0], **options)), draw(arrays(second, both[1], **options))


def assert_same(actual: Any, expected: Any, signs: bool = True) -> None:
    """A tensor equals an array: type, shape, every element, NaNs and (unless told otherwise) the signs of zeros."""
    assert type(actual) is Tensor, type(actual)
    wanted = np.asarray(expected)
    assert actual.dtype.numpy == wanted.dtype, (actual.dtype, wanted.dtype)
    assert actual.shape == wanted.shape
    assert actual.device is tl.asarray(0).device
    got = actual.numpy()
    if wanted.dtype == storage("bfloat16"):
        got, wanted = got.astype(np.float32), wanted.astype(np.float32)
    np.testing.assert_array_equal(got, wanted)
    if signs and wanted.dtype.kind in "fc":
        for part in ("real", "imag") if wanted.dtype.kind == "c" else ("real",):
            a, b = (np.asarray(getattr(side, part)).astype(np.float64) for side in (got, wanted))
            number = ~np.isnan(b)
            np.testing.assert_array_equal(np.signbit(a[number]), np.signbit(b[number]))


def assert_close(actual: Any, expected: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """A tensor is near an array, and of its type and shape."""
    wanted = np.asarray(expected)
    assert type(actual) is Tensor, type(actual)
    assert actual.dtype.numpy == wanted.dtype, (actual.dtype, wanted.dtype)
    assert actual.shape == wanted.shape
    got, wide = actual.numpy(), np.complex128 if wanted.dtype.kind == "c" else np.float64
    np.testing.assert_allclose(got.astype(wide), wanted.astype(wide), rtol=rtol, atol=atol)
