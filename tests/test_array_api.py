"""The namespace as the array API standard (2024.12) describes it: names, signatures, inspection, test strategies."""

import inspect
import pkgutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.array_api import make_strategies_namespace

import tallow as tl
from tallow import fft, linalg
from tallow.errors import ArgumentError, DTypeError, OutOfMemoryError

# Signatures of the standard, written as lambdas; positional-only names are free.
UNARY = """abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh exp expm1 floor imag isfinite isinf
    isnan log log1p log2 log10 logical_not negative positive real reciprocal round sign signbit sin sinh square sqrt tan
    tanh trunc matrix_transpose nonzero unique_all unique_counts unique_inverse unique_values""".split()  # noqa: SIM905
BINARY = """add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign divide equal
    floor_divide greater greater_equal hypot less less_equal logaddexp logical_and logical_or logical_xor maximum
    minimum multiply nextafter not_equal pow remainder subtract matmul""".split()  # noqa: SIM905
STANDARD = {
    **dict.fromkeys(UNARY, lambda x, /: 0),
    **dict.fromkeys(BINARY, lambda x1, x2, /: 0),
    "clip": lambda x, /, min=None, max=None: 0,
    "arange": lambda start, /, stop=None, step=1, *, dtype=None, device=None: 0,
    "asarray": lambda obj, /, *, dtype=None, device=None, copy=None: 0,
    "empty": lambda shape, *, dtype=None, device=None: 0,
    "empty_like": lambda x, /, *, dtype=None, device=None: 0,
    "eye": lambda n_rows, n_cols=None, /, *, k=0, dtype=None, device=None: 0,
    "from_dlpack": lambda x, /, *, device=None, copy=None: 0,
    "full": lambda shape, fill_value, *, dtype=None, device=None: 0,
    "full_like": lambda x, /, fill_value, *, dtype=None, device=None: 0,
    "linspace": lambda start, stop, /, num, *, dtype=None, device=None, endpoint=True: 0,
    "meshgrid": lambda *arrays, indexing="xy": 0,
    "ones": lambda shape, *, dtype=None, device=None: 0,
    "ones_like": lambda x, /, *, dtype=None, device=None: 0,
    "tril": lambda x, /, *, k=0: 0,
    "triu": lambda x, /, *, k=0: 0,
    "zeros": lambda shape, *, dtype=None, device=None: 0,
    "zeros_like": lambda x, /, *, dtype=None, device=None: 0,
    "astype": lambda x, dtype, /, *, copy=True, device=None: 0,
    "can_cast": lambda from_, to, /: 0,
    "finfo": lambda type, /: 0,
    "iinfo": lambda type, /: 0,
    "isdtype": lambda dtype, kind: 0,
    "result_type": lambda *arrays_and_dtypes: 0,
    "take": lambda x, indices, /, *, axis=None: 0,
    "take_along_axis": lambda x, indices, /, *, axis=-1: 0,
    "tensordot": lambda x1, x2, /, *, axes=2: 0,
    "vecdot": lambda x1, x2, /, *, axis=-1: 0,
    "broadcast_arrays": lambda *arrays: 0,
    "broadcast_to": lambda x, /, shape: 0,
    "concat": lambda arrays, /, *, axis=0: 0,
    "expand_dims": lambda x, /, axis: 0,
    "flip": lambda x, /, *, axis=None: 0,
    "moveaxis": lambda x, source, destination, /: 0,
    "permute_dims": lambda x, /, axes: 0,
    "repeat": lambda x, repeats, /, *, axis=None: 0,
    "reshape": lambda x, /, shape, *, copy=None: 0,
    "roll": lambda x, /, shift, *, axis=None: 0,
    "squeeze": lambda x, /, axis: 0,
    "stack": lambda arrays, /, *, axis=0: 0,
    "tile": lambda x, repetitions, /: 0,
    "unstack": lambda x, /, *, axis=0: 0,
    "argmax": lambda x, /, *, axis=None, keepdims=False: 0,
    "argmin": lambda x, /, *, axis=None, keepdims=False: 0,
    "count_nonzero": lambda x, /, *, axis=None, keepdims=False: 0,
    "searchsorted": lambda x1, x2, /, *, side="left", sorter=None: 0,
    "where": lambda condition, x1, x2, /: 0,
    "argsort": lambda x, /, *, axis=-1, descending=False, stable=True: 0,
    "sort": lambda x, /, *, axis=-1, descending=False, stable=True: 0,
    "cumulative_prod": lambda x, /, *, axis=None, dtype=None, include_initial=False: 0,
    "cumulative_sum": lambda x, /, *, axis=None, dtype=None, include_initial=False: 0,
    "max": lambda x, /, *, axis=None, keepdims=False: 0,
    "mean": lambda x, /, *, axis=None, keepdims=False: 0,
    "min": lambda x, /, *, axis=None, keepdims=False: 0,
    "prod": lambda x, /, *, axis=None, dtype=None, keepdims=False: 0,
    "std": lambda x, /, *, axis=None, correction=0.0, keepdims=False: 0,
    "sum": lambda x, /, *, axis=None, dtype=None, keepdims=False: 0,
    "var": lambda x, /, *, axis=None, correction=0.0, keepdims=False: 0,
    "all": lambda x, /, *, axis=None, keepdims=False: 0,
    "any": lambda x, /, *, axis=None, keepdims=False: 0,
    "diff": lambda x, /, *, axis=-1, n=1, prepend=None, append=None: 0,
    "__array_namespace_info__": lambda: 0,
}
LINALG = {
    "cholesky": lambda x, /, *, upper=False: 0,
    "cross": lambda x1, x2, /, *, axis=-1: 0,
    "det": lambda x, /: 0,
    "diagonal": lambda x, /, *, offset=0: 0,
    "eigh": lambda x, /: 0,
    "eigvalsh": lambda x, /: 0,
    "inv": lambda x, /: 0,
    "matmul": lambda x1, x2, /: 0,
    "matrix_norm": lambda x, /, *, keepdims=False, ord="fro": 0,
    "matrix_power": lambda x, n, /: 0,
    "matrix_rank": lambda x, /, *, rtol=None: 0,
    "matrix_transpose": lambda x, /: 0,
    "outer": lambda x1, x2, /: 0,
    "pinv": lambda x, /, *, rtol=None: 0,
    "qr": lambda x, /, *, mode="reduced": 0,
    "slogdet": lambda x, /: 0,
    "solve": lambda x1, x2, /: 0,
    "svd": lambda x, /, *, full_matrices=True: 0,
    "svdvals": lambda x, /: 0,
    "tensordot": lambda x1, x2, /, *, axes=2: 0,
    "trace": lambda x, /, *, offset=0, dtype=None: 0,
    "vecdot": lambda x1, x2, /, *, axis=-1: 0,
    "vector_norm": lambda x, /, *, axis=None, keepdims=False, ord=2: 0,
}
FFT = {
    **dict.fromkeys(
        ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"], lambda x, /, *, n=None, axis=-1, norm="backward": 0
    ),
    **dict.fromkeys(["fftn", "ifftn", "rfftn", "irfftn"], lambda x, /, *, s=None, axes=None, norm="backward": 0),
    **dict.fromkeys(["fftfreq", "rfftfreq"], lambda n, /, *, d=1.0, dtype=None, device=None: 0),
    **dict.fromkeys(["fftshift", "ifftshift"], lambda x, /, *, axes=None: 0),
}
CONSTANTS = ("e", "inf", "nan", "newaxis", "pi")
DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128".split()  # noqa: SIM905
INFIX = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()  # noqa: SIM905
METHODS = {
    **{f"__{p}{name}__": lambda self, other, /: 0 for name in INFIX for p in ("", "r", "i")},
    **dict.fromkeys([f"__{name}__" for name in ("lt", "le", "gt", "ge", "eq", "ne")], lambda self, other, /: 0),
    **dict.fromkeys(
        [f"__{n}__" for n in ("abs", "neg", "pos", "invert", "bool", "int", "float", "complex", "index")],
        lambda self, /: 0,
    ),
    "__array_namespace__": lambda self, /, *, api_version=None: 0,
    "__dlpack__": lambda self, /, *, stream=None, max_version=None, dl_device=None, copy=None: 0,
    "__dlpack_device__": lambda self, /: 0,
    "__getitem__": lambda self, key, /: 0,
    "__setitem__": lambda self, key, value, /: 0,
    "to_device": lambda self, device, /, *, stream=None: 0,
}
PROPERTIES = ("dtype", "device", "mT", "ndim", "shape", "size", "T")


def shape_of(function, bound=False):
    """A signature as far as callers can tell: kinds, defaults, and the names that may be used as keywords."""
    parameters = list(inspect.signature(function).parameters.values())[bound:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    return [("" if p.kind in positional else p.name, p.kind, p.default) for p in parameters]


@pytest.mark.parametrize("name", STANDARD)
def test_functions(name):
    assert name in tl.__all__
    assert shape_of(getattr(tl, name)) == shape_of(STANDARD[name])


@pytest.mark.parametrize(("module", "table"), [(linalg, LINALG), (fft, FFT)], ids=["linalg", "fft"])
def test_extensions(module, table):
    assert sorted(module.__all__) == sorted(table)
    for name, function in table.items():
        assert shape_of(getattr(module, name)) == shape_of(function), name
    assert getattr(tl, module.__name__.split(".")[-1]) is module


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    assert shape_of(getattr(tl.Tensor, name), bound=True) == shape_of(METHODS[name], bound=True)
    assert shape_of(getattr(tl.ones(1), name)) == shape_of(METHODS[name], bound=True)


def test_attributes_constants_and_types():
    assert all(hasattr(tl.ones((1, 1)), name) for name in PROPERTIES)
    assert all(name in tl.__all__ and hasattr(tl, name) for name in (*CONSTANTS, *DTYPES))
    assert (tl.newaxis, tl.inf, round(tl.e + tl.pi, 6)) == (None, float("inf"), 5.859874)
    assert tl.__array_api_version__ == "2024.12"
    types = [getattr(tl, name) for name in DTYPES]
    assert all((a == b) == (i == j) for i, a in enumerate(types) for j, b in enumerate(types))


def first_parameter(function):
    return next(iter(inspect.signature(function).parameters), "")


@pytest.mark.parametrize("name", [name for name, f in STANDARD.items() if first_parameter(f) in ("x", "x1")])
@pytest.mark.parametrize("wrong", [[1.0, 2.0], None, "text"], ids=["list", "None", "text"])
def test_what_is_no_tensor_is_named(name, wrong):
    parameters = inspect.signature(getattr(tl, name)).parameters.values()
    needed = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    given = [tl.float32 if p.name == "dtype" else wrong for p in list(parameters)[:needed]]
    what = "an array with __dlpack__" if name == "from_dlpack" else "a Tensor"
    with pytest.raises(DTypeError, match=rf"^{name}: expected {what}, found {type(wrong).__name__}"):
        getattr(tl, name)(*given)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: tl.tile(x, (-1,)), ArgumentError),
        (lambda x: tl.concat(3), DTypeError),
        (lambda x: tl.ones((2**40, 2**40)), ArgumentError),
        (lambda x: tl.arange(2**50), OutOfMemoryError),
        (lambda x: tl.tril(x, k=10**30), ArgumentError),
        (lambda x: tl.diff(x, n=1.5), DTypeError),
        (lambda x: x.narrow(0, "a", 1), DTypeError),
        (lambda x: tl.broadcast_to(x, "a"), DTypeError),
        (lambda x: linalg.matrix_power(x, 2.5), DTypeError),
        (lambda x: tl.where(x), DTypeError),
        (lambda x: tl.clip(x, "a"), DTypeError),
        (lambda x: tl.sum(x, axes=0), DTypeError),
    ],
)
def test_every_error_is_one_of_tallow_and_names_the_operation_once(call, error):
    with pytest.raises(error, match=r"^(\w+): (?!\1:)"):
        call(tl.ones((2, 2)))


def test_functions_and_methods_have_docstrings():
    for name in STANDARD:
        assert getattr(tl, name).__doc__, name


def test_every_public_name_is_there():
    for name in tl.__all__:
        assert getattr(tl, name) is not None or name == "newaxis"
    assert set(tl.__all__) <= set(dir(tl))
    with pytest.raises(AttributeError, match="module 'tallow' has no attribute 'tensor_of_things'"):
        _ = tl.tensor_of_things
    scope = {}
    exec("from tallow import *", scope)
    assert scope["matmul"] is tl.matmul


@pytest.mark.parametrize(
    "first", ["tallow.ops", "tallow.tensor", "tallow.operators", "tallow.ops.dispatch", "tallow.nn"]
)
def test_modules_can_be_imported_in_any_order(first):
    subprocess.run([sys.executable, "-c", f"import {first}, tallow; tallow.ones(2) + 1"], check=True)


def test_an_operations_file_may_share_its_name():
    """``tallow.ops.NAME`` is the operation, also where a file of the family has the same name."""
    import tallow.ops

    for module in pkgutil.iter_modules(tallow.ops.__path__):
        if module.name in tallow.ops.__all__:
            assert inspect.isfunction(getattr(tallow.ops, module.name))


def test_inspection():
    info = tl.__array_namespace_info__()
    capabilities = info.capabilities()
    assert capabilities["boolean indexing"] is True
    assert capabilities["data-dependent shapes"] is True
    assert tl.ones((1,) * capabilities["max dimensions"]).ndim == capabilities["max dimensions"]
    assert info.default_device() in info.devices()
    for device in (None, *info.devices()):
        defaults = info.default_dtypes(device=device)
        assert defaults["real floating"] is tl.asarray(1.0).dtype
        assert defaults["complex floating"] is tl.asarray(1j).dtype
        assert defaults["integral"] is tl.asarray(1).dtype
        assert defaults["indexing"] is tl.argmax(tl.ones(2)).dtype
        assert list(info.dtypes(device=device)) == DTYPES
        assert tl.ones(1, device=device).device in info.devices()
    assert info.dtypes(kind="complex floating") == {"complex64": tl.complex64, "complex128": tl.complex128}
    assert list(info.dtypes(kind=("bool", "signed integer"))) == DTYPES[:5]
    with pytest.raises(DTypeError, match="isdtype: no kind 'reals'"):
        info.dtypes(kind="reals")


def test_namespace_of_a_tensor():
    x = tl.ones(2)
    for version in (None, "2024.12", "2023.12", "2022.12", "2021.12"):
        assert x.__array_namespace__(api_version=version) is tl
    with pytest.raises(ArgumentError, match=r"version '2020\.10'"):
        x.__array_namespace__(api_version="2020.10")


xps = make_strategies_namespace(tl)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_hypothesis_can_draw_tensors(data):
    dtype = data.draw(xps.scalar_dtypes())
    x = data.draw(xps.arrays(dtype, xps.array_shapes(max_dims=3, max_side=4)))
    assert type(x) is tl.Tensor
    assert x.dtype is dtype
    key = data.draw(xps.indices(x.shape, allow_newaxis=True))
    assert x[key].dtype is dtype
    axes = data.draw(xps.valid_tuple_axes(x.ndim))
    assert tl.all(x == x, axis=axes).dtype is tl.bool


@given(xps.arrays(tl.float32, (4,), unique=True), xps.arrays(tl.int8, 3, elements={"min_value": 0}, fill=st.just(7)))
@settings(max_examples=20, deadline=None)
def test_hypothesis_can_draw_unique_and_bounded_elements(x, y):
    assert tl.unique_values(x).shape == (4,)
    assert bool(tl.all(y >= 0))
