import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallow as tl
from tallow import fft
from tallow.errors import ArgumentError, BoundsError, DTypeError, ShapeError
from tests.arrays import COMPLEX, FLOATS, NARROW, arrays, assert_close, assert_same, few, shapes

ONE = {"fft": COMPLEX, "ifft": COMPLEX, "rfft": FLOATS, "irfft": COMPLEX, "hfft": COMPLEX, "ihfft": FLOATS}
SEVERAL = {"fftn": COMPLEX, "ifftn": COMPLEX, "rfftn": FLOATS, "irfftn": COMPLEX}
norms = st.sampled_from(["backward", "ortho", "forward"])


@pytest.mark.parametrize("name", ONE)
@given(data=st.data())
@few
def test_transforms_along_an_axis_against_the_standard(name, data):
    x = data.draw(arrays(ONE[name], shapes(min_dims=1, min_side=2), limit=9))
    options = {
        "n": data.draw(st.none() | st.integers(1, 7)),
        "axis": data.draw(st.integers(-x.ndim, x.ndim - 1)),
        "norm": data.draw(norms),
    }
    expected = getattr(xp.fft, name)(xp.asarray(x), **options)
    assert_close(getattr(fft, name)(tl.asarray(x), **options), expected, 1e-4, 1e-4)


@pytest.mark.parametrize("name", SEVERAL)
@given(data=st.data())
@few
def test_transforms_over_axes_against_the_standard(name, data):
    x = data.draw(arrays(SEVERAL[name], shapes(min_dims=1, min_side=2), limit=9))
    axes = data.draw(st.none() | st.lists(st.integers(0, x.ndim - 1), min_size=1, unique=True))
    sizes = data.draw(
        st.none() | st.lists(st.integers(2, 6), min_size=len(axes or x.shape), max_size=len(axes or x.shape))
    )
    options = {"norm": data.draw(norms), "s": sizes}
    expected = getattr(np.fft, name)(x, axes=range(x.ndim) if axes is None else axes, **options)
    assert_close(getattr(fft, name)(tl.asarray(x), axes=axes, **options), expected, 1e-4, 1e-3)


def test_sizes_without_axes_are_those_of_the_last_axes(recwarn):
    x = np.ones((2, 3, 4), "c8")
    assert_close(fft.fftn(tl.asarray(x), s=(5, 6)), np.fft.fftn(x, s=(5, 6), axes=(1, 2)))
    assert fft.rfftn(tl.ones((2, 3, 4)), s=(3,)).shape == (2, 3, 2)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["fft", "rfft", "ihfft", "fftn", "rfftn"])
def test_types(name):
    function = getattr(fft, name)
    for dtype in (*NARROW, "float32", "int8", "bool"):
        assert function(tl.ones(4, dtype=dtype)).dtype is tl.complex64
    assert function(tl.ones(4, dtype="float64")).dtype is tl.complex128
    for inverse in (fft.irfft, fft.hfft, fft.irfftn):
        assert inverse(tl.ones(4, dtype="complex64")).dtype is tl.float32
        assert inverse(tl.ones(4, dtype="complex128")).dtype is tl.float64


@given(n=st.integers(1, 30), d=st.floats(0.1, 5))
@few
def test_frequencies(n, d):
    for name in ("fftfreq", "rfftfreq"):
        expected = getattr(np.fft, name)(n, d)
        assert_close(getattr(fft, name)(n, d=d), expected.astype("f4"))
        assert_close(getattr(fft, name)(n, d=d, dtype=tl.float64, device="cpu"), expected, 1e-12)


@given(data=st.data())
@few
def test_shifts(data):
    x = data.draw(arrays((*FLOATS, *COMPLEX, *NARROW)))
    axes = data.draw(st.none() | st.lists(st.integers(0, x.ndim - 1), unique=True)) if x.ndim else None
    if x.ndim and axes != []:  # NumPy fails without axes
        assert_same(fft.fftshift(tl.asarray(x), axes=axes), np.fft.fftshift(x, axes))
    assert_same(fft.ifftshift(fft.fftshift(tl.asarray(x), axes=axes), axes=axes), x)


def test_transforms_refuse():
    x = tl.ones((2, 3))
    with pytest.raises(ArgumentError, match="fft: norm is 'both'"):
        fft.fft(x, norm="both")
    with pytest.raises(BoundsError, match="rfft: axis 2"):
        fft.rfft(x, axis=2)
    with pytest.raises(ShapeError, match=r"irfft: .*n 0"):
        fft.irfft(x, n=0)
    with pytest.raises(ShapeError, match="fftn: 1 sizes for 2 axes"):
        fft.fftn(x, s=(1,), axes=(0, 1))
    with pytest.raises(ShapeError, match="fftn: 3 sizes for 2 axes"):
        fft.fftn(x, s=(1, 1, 1))
    with pytest.raises(DTypeError, match="rfft: takes real numbers, found complex64"):
        fft.rfft(tl.asarray([1j]))
    with pytest.raises(DTypeError, match="fft: expected a Tensor"):
        fft.fft([1.0])
    for bad in ({"n": 0}, {"n": 4, "dtype": tl.int8}):
        with pytest.raises(ArgumentError, match="fftfreq: expected a length of at least 1"):
            fft.fftfreq(bad.pop("n"), **bad)
