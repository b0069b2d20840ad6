import math

import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallow as tl
from tallow import linalg
from tallow.errors import ArgumentError, BoundsError, DTypeError, ShapeError
from tests.arrays import COMPLEX, FLOATS, NARROW, REAL, arrays, assert_close, assert_same, few, shapes, storage

inf = math.inf
KINDS = (*FLOATS, *COMPLEX)


@st.composite
def matrices(draw, square=False, min_side=0, stacks=((), (2,), (0,), (2, 3))):
    """Random matrices of full rank, in stacks."""
    n = draw(st.integers(min_side, 4))
    shape = (*draw(st.sampled_from(stacks)), n, n if square else draw(st.integers(min_side, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    dtype = draw(st.sampled_from(KINDS))
    x = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if dtype[0] == "c" else 0)
    return x.astype(dtype)


def adjoint(x):
    return x.swapaxes(-1, -2).conj()


def definite(x):
    return (x @ adjoint(x) + np.eye(x.shape[-1], dtype=x.dtype)).astype(x.dtype)


def real_type(x):
    return x.real.dtype


@given(x=matrices(square=True), upper=st.booleans())
@few
def test_cholesky(x, upper):
    a = definite(x)
    factor = linalg.cholesky(tl.asarray(a), upper=upper)
    f = factor.numpy()
    assert_close(factor, np.triu(f) if upper else np.tril(f))
    assert_close(tl.asarray(adjoint(f) @ f if upper else f @ adjoint(f)), a, 1e-3, 1e-3)


@given(x=matrices(square=True))
@few
def test_det_inv_slogdet_and_power(x):
    t = tl.asarray(x)
    assert_close(linalg.det(t), np.linalg.det(x), 1e-3, 1e-3)
    sign, size = linalg.slogdet(t)
    assert sign.dtype is t.dtype
    assert size.dtype.numpy == real_type(x)
    assert_close(tl.asarray((sign.numpy() * np.exp(size.numpy())).astype(x.dtype)), np.linalg.det(x), 1e-3, 1e-3)
    a = definite(x)
    eye = np.broadcast_to(np.eye(x.shape[-1], dtype=x.dtype), x.shape)
    assert_close(linalg.inv(tl.asarray(a)) @ tl.asarray(a), eye, 1e-2, 1e-2)
    assert_close(linalg.matrix_power(t, 3), x @ x @ x, 1e-3, 1e-3)
    assert_close(linalg.matrix_power(t, 0), eye)
    assert_close(linalg.matrix_power(tl.asarray(a), -2), np.linalg.inv(a @ a).astype(x.dtype), 1e-2, 1e-2)


@given(x=matrices(square=True))
@few
def test_eigenvalues(x):
    a = definite(x)
    result = linalg.eigh(tl.asarray(a))
    assert result._fields == ("eigenvalues", "eigenvectors")
    values, vectors = result
    assert values.dtype.numpy == real_type(x)
    assert_close(tl.asarray(a) @ vectors, vectors.numpy() * values.numpy()[..., None, :], 1e-2, 1e-2)
    assert_close(linalg.eigvalsh(tl.asarray(a)), values.numpy(), 1e-3, 1e-3)


@given(x=matrices(), mode=st.sampled_from(["reduced", "complete"]))
@few
def test_qr(x, mode):
    result = linalg.qr(tl.asarray(x), mode=mode)
    assert result._fields == ("Q", "R")
    q, r = result
    (m, n), k = x.shape[-2:], min(x.shape[-2:])
    assert (q.shape[-2:], r.shape[-2:]) == (((m, k), (k, n)) if mode == "reduced" else ((m, m), (m, n)))
    assert_close(q @ r, x, 1e-3, 1e-3)
    assert_same(tl.triu(r), r.numpy(), signs=False)


@given(x=matrices(), full=st.booleans())
@few
def test_svd(x, full):
    t = tl.asarray(x)
    result = linalg.svd(t, full_matrices=full)
    assert result._fields == ("U", "S", "Vh")
    u, s, vh = result
    (m, n), k = x.shape[-2:], min(x.shape[-2:])
    assert (u.shape[-2:], vh.shape[-2:]) == (((m, m), (n, n)) if full else ((m, k), (k, n)))
    assert s.dtype.numpy == real_type(x)
    assert_close((u[..., :, :k] * tl.expand_dims(s, -2)) @ vh[..., :k, :], x, 1e-3, 1e-3)
    assert_close(linalg.svdvals(t), s.numpy(), 1e-3, 1e-3)
    assert bool(tl.all(tl.diff(s) <= 0)) or k < 2


@pytest.mark.parametrize(
    ("stack", "right"),
    [((), ()), ((2,), ()), ((), (1,)), ((2,), (3,)), ((), (4, 2)), ((2, 1), (3, 2)), ((0,), (2,)), ((3,), (1, 2))],
)
@given(x=matrices(square=True, stacks=((),)))
@few
def test_solve(stack, right, x):
    n = x.shape[-1]
    a = np.broadcast_to(definite(x), (*stack, n, n))
    b = np.ones((*right[:-1], n, *right[-1:]), x.dtype)
    columns = b[:, None] if b.ndim == 1 else b
    shape = np.broadcast_shapes(a.shape[:-2], columns.shape[:-2])
    expected = np.broadcast_to(np.linalg.inv(a) @ columns, (*shape, *columns.shape[-2:]))
    expected = (expected[..., 0] if b.ndim == 1 else expected).astype(x.dtype)
    assert_close(linalg.solve(tl.asarray(a), tl.asarray(b)), expected, 1e-2, 1e-2)


@given(x=matrices(min_side=1))
@few
def test_rank_and_pseudo_inverse(x):
    t, k = tl.asarray(x), min(x.shape[-2:])
    assert_same(linalg.matrix_rank(t), np.full(x.shape[:-2], k))
    assert_same(linalg.matrix_rank(t * 0), np.zeros(x.shape[:-2], "int64"))
    assert_same(linalg.matrix_rank(t, rtol=2.0), np.zeros(x.shape[:-2], "int64"))
    tolerance = tl.full(x.shape[:-2], 1e-6, dtype=linalg.svdvals(t).dtype)
    assert_same(linalg.matrix_rank(t, rtol=tolerance), np.full(x.shape[:-2], k))
    inverse = linalg.pinv(t)
    assert inverse.shape == (*x.shape[:-2], x.shape[-1], x.shape[-2])
    assert_close(t @ inverse @ t, x, 1e-2, 1e-2)
    assert_close(linalg.pinv(t, rtol=1e-6), linalg.pinv(t, rtol=tolerance).numpy(), 1e-3, 1e-3)


def test_rank_of_dependent_rows_and_nothing():
    a = tl.asarray([[1.0, 2.0], [2.0, 4.0]])
    assert int(linalg.matrix_rank(a)) == 1
    assert_close(a @ linalg.pinv(a) @ a, a.numpy(), 1e-4, 1e-4)
    assert_same(linalg.matrix_rank(tl.zeros((3, 0, 2))), np.zeros(3, "int64"))


@given(x=matrices(min_side=1), keepdims=st.booleans())
@pytest.mark.parametrize("order", ["fro", "nuc", 1, -1, 2, -2, inf, -inf, None])
@few
def test_matrix_norm(x, keepdims, order):
    expected = np.linalg.norm(x, order or "fro", axis=(-2, -1), keepdims=keepdims)
    assert_close(linalg.matrix_norm(tl.asarray(x), ord=order, keepdims=keepdims), expected.astype(real_type(x)), 1e-3)
    if order is None:
        assert_close(linalg.matrix_norm(tl.asarray(x), keepdims=keepdims), expected.astype(real_type(x)), 1e-3)


@given(data=st.data())
@pytest.mark.parametrize("order", [2, 1, inf, -inf, 0, -1, -2, 3, 0.5])
@few
def test_vector_norm_against_the_standard(order, data):
    x = data.draw(arrays(KINDS, shapes(min_dims=1, min_side=1), limit=9)) + 1
    axis = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1) | st.just(tuple(range(x.ndim))))
    keepdims = data.draw(st.booleans())
    with np.errstate(all="ignore"):
        expected = xp.linalg.vector_norm(xp.asarray(x), axis=axis, keepdims=keepdims, ord=order)
    assert_close(linalg.vector_norm(tl.asarray(x), axis=axis, keepdims=keepdims, ord=order), expected, 1e-3, 1e-3)


@given(x=arrays(REAL, shapes(min_dims=2)), offset=st.integers(-6, 6))
@few
def test_diagonal_and_trace(x, offset):
    x = {"f": lambda: np.nan_to_num(np.clip(x, -9, 9))}.get(x.dtype.kind, lambda: x)()
    t = tl.asarray(x)
    part = linalg.diagonal(t, offset=offset)
    assert_same(part, np.diagonal(x, offset, -2, -1))
    assert part.size == 0 or np.shares_memory(part.storage, x)
    assert_close(linalg.trace(t, offset=offset), xp.linalg.trace(xp.asarray(x), offset=offset))
    assert linalg.trace(t, dtype="float64").dtype is tl.float64


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_floats_are_computed_in_float32_and_rounded_once(dtype):
    x = tl.asarray([[4.0, 1.0], [1.0, 3.0]], dtype=dtype)
    wide = x.float()
    for name in ("cholesky", "det", "inv", "eigvalsh", "pinv", "svdvals", "matrix_norm", "vector_norm", "trace"):
        function = getattr(linalg, name)
        assert_same(function(x), function(wide).numpy().astype(storage(dtype)))
    assert_same(linalg.solve(x, x), np.eye(2, dtype=storage(dtype)))
    assert linalg.solve(x, wide).dtype is tl.float32
    assert [part.dtype.name for part in (*linalg.qr(x), *linalg.svd(x), *linalg.eigh(x), *linalg.slogdet(x))] == [
        dtype
    ] * 9


def test_integers_are_computed_in_float32():
    x = tl.asarray([[2, 0], [0, 4]])
    assert_same(linalg.det(x), np.asarray(8, "f4"))
    assert_same(linalg.inv(x), np.asarray([[0.5, 0], [0, 0.25]], "f4"))
    assert_same(linalg.solve(x, x), np.eye(2, dtype="f4"))
    assert_same(linalg.vector_norm(tl.asarray([3, 4])), np.asarray(5, "f4"))


def test_what_cannot_be_done():
    singular = tl.zeros((2, 2))
    for name in ("inv", "matrix_power", "solve"):
        arguments = {"matrix_power": (-1,), "solve": (tl.ones(2),)}.get(name, ())
        with pytest.raises(ArgumentError, match=f"{name}: singular matrix"):
            getattr(linalg, name)(singular, *arguments)
    with pytest.raises(ArgumentError, match=r"cholesky: .*positive definite"):
        linalg.cholesky(singular - 1)
    with pytest.raises(ShapeError, match=r"det: expected square matrices \(…, m, n\), found shape \(2, 3\)"):
        linalg.det(tl.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"svd: expected matrices \(…, m, n\), found shape \(3,\)"):
        linalg.svd(tl.ones(3))
    for name in ("diagonal", "trace"):
        with pytest.raises(ShapeError, match=f"{name}: expected matrices"):
            getattr(linalg, name)(tl.ones(3))
    with pytest.raises(ShapeError, match=r"solve: shapes \(2, 2\) and \(3,\) do not fit"):
        linalg.solve(tl.eye(2), tl.ones(3))
    with pytest.raises(ArgumentError, match="qr: mode is 'full'"):
        linalg.qr(tl.eye(2), mode="full")
    with pytest.raises(ArgumentError, match="matrix_norm: ord is 3"):
        linalg.matrix_norm(tl.eye(2), ord=3)
    with pytest.raises(DTypeError, match="vector_norm: ord is 'fro'"):
        linalg.vector_norm(tl.ones(2), ord="fro")
    with pytest.raises(BoundsError, match="vector_norm: axis 1"):
        linalg.vector_norm(tl.ones(2), axis=1)
    with pytest.raises(DTypeError, match="inv: expected a Tensor"):
        linalg.inv([[1]])
