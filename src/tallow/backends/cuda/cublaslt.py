"""Large products by cuBLASLt, through ctypes: bias, tanh-GELU and residual in the product's own epilogue.

cuBLASLt asks for a choice of algorithm, which it makes by heuristics; the choice is kept for each shape, and for large
batches it is the fastest of several. It may be called while a stream is captured, which CuPy's cuBLAS calls may not.

Source: the cuBLAS library's documentation, "Using the cuBLASLt API"; the numbers are those of ``cublasLt.h``.
"""

from __future__ import annotations

import ctypes
import functools
import statistics
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import cupy
import numpy as np

from tallow import dtypes
from tallow.backends.cuda import graph
from tallow.backends.cuda.compiler import load_library
from tallow.backends.cuda.memory import lack
from tallow.errors import DeviceError, OutOfMemoryError

ACTIVATIONS = {"gelu_tanh": 32, "relu": 2}
"""CUBLASLT_EPILOGUE_GELU and _RELU. cuBLASLt's GELU is the approximation by tanh."""

_TYPES = {dtypes.float32.numpy: 0, dtypes.float16.numpy: 2, dtypes.bfloat16.numpy: 14}  # cudaDataType_t
_E4M3 = 28
_COMPUTE_32F = 68
_LACK, _NOT_SUPPORTED = 3, 15  # CUBLAS_STATUS_ALLOC_FAILED, …_NOT_SUPPORTED
_TRANSPOSE_A, _EPILOGUE, _BIAS_POINTER = 3, 7, 8  # cublasLtMatmulDescAttributes_t
_SCALE_POINTERS, _SCALE_MODES = (17, 18), (31, 32)  # of A and B
_EPILOGUE_NONE, _EPILOGUE_BIAS = 1, 4
_MAX_WORKSPACE = 1  # cublasLtMatmulPreferenceAttributes_t
_ALIGNMENTS = (5, 6, 7, 8)  # of A, B, C and D
_WORKSPACE = 32 << 20  # bytes that an algorithm may ask for
_CANDIDATES = 16  # algorithms of a product that are asked for
_ROUNDS = 7  # of a trial
_ROWS_FOR_TRIAL, _USES_BEFORE_TRIAL = 2048, 20  # when it pays to try them all: batches, which are alike, not prompts


class _Found(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = [
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    ]


class Scaling(NamedTuple):
    """Which numbers in E4M3 share a scale: cublasLtMatmulMatrixScale_t of A and of B."""

    weight: int
    x: int


ROWS = Scaling(3, 3)
"""CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F: all of a row, of the weight and of x. Since 12.9, as the next."""
BLOCKS = Scaling(5, 4)
"""…_BLK128x128_32F and …_VEC128_32F: 128 × 128 of the weight, 128 neighbours in a row of x. Scales of the weight
are (bands, groups), groups a multiple of 4; of x (groups, rows)."""


class _Owned:
    """Something that the library has made for us, and frees when this object goes.

    Args:
        kind: of what, as the library's functions are called: ``"MatrixLayout"`` for ``cublasLtMatrixLayoutCreate``.
        arguments: of that function, besides where the handle goes.
    """

    _as_parameter_: Any = None  # what ctypes passes for this object

    def __init__(self, kind: str, *arguments: Any) -> None:
        self._kind = kind
        self._as_parameter_ = _made(f"cublasLt{kind}Create", *arguments)

    def __del__(self) -> None:
        if self._as_parameter_ is not None and not sys.is_finalizing():
            _call(f"cublasLt{self._kind}Destroy", self._as_parameter_)


class _Plan:
    """A product of one shape: its descriptors and the way chosen, an algorithm and bytes of the workspace for it."""

    def __init__(
        self,
        handle: Any,
        dtype: Any,
        sizes: tuple[int, ...],
        epilogue: int,
        aligned: int,
        scaling: Scaling | None,
    ) -> None:
        outputs, rows, inputs, distance, added_distance = sizes
        self._handle = handle
        self._adds = _ONE if added_distance else _ZERO
        kind = _TYPES[dtype]
        factor = kind if scaling is None else _E4M3
        self.product = _Owned("MatmulDesc", _COMPUTE_32F, 0)
        self._set(self.product, _TRANSPOSE_A, ctypes.c_int32(1))
        self._set(self.product, _EPILOGUE, ctypes.c_int32(epilogue))
        if epilogue & _EPILOGUE_BIAS:  # the heuristics look whether there is one
            self.set_bias(256)
        if scaling is not None:
            for attribute, mode in zip(_SCALE_MODES, scaling, strict=True):
                self._set(self.product, attribute, ctypes.c_int32(mode))
            self.set_scales(256, 256)
        # cuBLAS lays matrices out by columns: out (rows, outputs) by rows is (outputs, rows) by columns.
        self.weight = _layout(factor, inputs, outputs, inputs)
        self.x = _layout(factor, inputs, rows, distance)
        self.added = _layout(kind, outputs, rows, added_distance or outputs)
        self.out = _layout(kind, outputs, rows, outputs)
        # Without a workspace the share of each multiprocessor is fixed: faster where there is work enough for all.
        limits = (0, _WORKSPACE) if rows >= _ROWS_FOR_TRIAL else (_WORKSPACE, 0)
        self.candidates = [way for limit in limits for way in self._named(limit, aligned)]
        if not self.candidates:
            raise DeviceError(f"cuBLASLt has no algorithm for a product of {sizes} in {dtype}")
        self.way = self.candidates[0]
        self.uses_before_trial = _USES_BEFORE_TRIAL if rows >= _ROWS_FOR_TRIAL else -1

    def _named(self, workspace: int, aligned: int) -> list[tuple[Any, int]]:
        """The algorithms that cuBLASLt's heuristics name, the one they think the fastest first."""
        preference = _Owned("MatmulPreference")
        _set_attribute("cublasLtMatmulPreferenceSetAttribute", preference, _MAX_WORKSPACE, ctypes.c_size_t(workspace))
        for attribute in _ALIGNMENTS:
            _set_attribute("cublasLtMatmulPreferenceSetAttribute", preference, attribute, ctypes.c_uint32(aligned))
        found, count = (_Found * _CANDIDATES)(), ctypes.c_int()
        status = _function("cublasLtMatmulAlgoGetHeuristic")(
            self._handle, self.product, self.weight, self.x, self.added, self.out, preference, _CANDIDATES, found,
            ctypes.byref(count),
        )  # fmt: skip
        if status not in (0, _NOT_SUPPORTED):
            raise DeviceError(f"cublasLtMatmulAlgoGetHeuristic failed with status {status}")
        return [(each.algorithm, each.workspace) for each in found[: count.value] if not each.state]

    def run(self, way: tuple[Any, int], weight: int, x: int, added: int, out: int) -> None:
        """Do the product in a way, with what lies at these addresses."""
        algorithm, nbytes = way
        # Held until the product is in the stream: what comes later there may have it.
        workspace = cupy.empty(nbytes, np.uint8).data if nbytes else None
        stream = cupy.cuda.get_current_stream().ptr
        _call(
            "cublasLtMatmul", self._handle, self.product, _ONE, weight, self.weight, x, self.x, self._adds, added,
            self.added, out, self.out, algorithm, workspace and workspace.ptr, nbytes, stream,
        )  # fmt: skip

    def try_all(self, *addresses: int) -> None:
        """Take the algorithm that is the fastest on this card, of those that cuBLASLt names.

        Args:
            addresses: as for ``run``.
        """
        took: list[list[float]] = [[] for _ in self.candidates]
        for _ in range(_ROUNDS):  # in turn, so that a card that slows down meanwhile does so for all
            for times, way in zip(took, self.candidates, strict=True):
                begin, end = cupy.cuda.Event(), cupy.cuda.Event()
                begin.record()
                self.run(way, *addresses)
                end.record()
                end.synchronize()
                times.append(cupy.cuda.get_elapsed_time(begin, end))
        medians = [statistics.median(times) for times in took]
        self.way = self.candidates[medians.index(min(medians))]

    def set_bias(self, address: int) -> None:
        """Where the bias of the next product lies."""
        self._set(self.product, _BIAS_POINTER, ctypes.c_void_p(address))

    def set_scales(self, weight: int, x: int) -> None:
        """Where the scales of the next product lie."""
        for attribute, address in zip(_SCALE_POINTERS, (weight, x), strict=True):
            self._set(self.product, attribute, ctypes.c_void_p(address))

    @staticmethod
    def _set(product: Any, attribute: int, value: Any) -> None:
        _set_attribute("cublasLtMatmulDescSetAttribute", product, attribute, value)


_ONE, _ZERO = ctypes.byref(ctypes.c_float(1)), ctypes.byref(ctypes.c_float(0))
MOST_PLANS = 4096
"""Plans that are kept, those used last, of 2 KB each. A model needs some ten for each length of prompt."""
_plans: OrderedDict[Any, _Plan] = OrderedDict()
_lock = threading.Lock()
"""Held while a plan is used: its descriptor holds the bias of the call at hand, and no other thread may let it go. A
recording needs no plan any more."""


def _planned(key: Any, make: Callable[[], _Plan]) -> _Plan:
    """The plan for a key, made if it is not kept; the one that was used longest ago goes. Called under the lock."""
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = make()
    _plans.move_to_end(key)
    while len(_plans) > MOST_PLANS:
        _plans.popitem(last=False)
    return plan


def multiply(
    out: Any,
    x: Any,
    distance: int,
    weight: Any,
    bias: Any,
    activation: str | None,
    added: Any,
    added_distance: int,
    scaled: tuple[Scaling, Any, Any] | None = None,
) -> None:
    """``out = activation(x @ weight.T + bias) + added``, in one type, summed in float32 (without TF32).

    x and weight may be in E4M3, and out in float16 or bfloat16.

    Args:
        out: (…, outputs), without gaps.
        x: rows of inputs.
        distance: elements from one row of x to the next.
        weight: (outputs, inputs), without gaps.
        bias: (outputs,), or None.
        activation: one of ``ACTIVATIONS``, or None.
        added: rows of outputs, or None; not with an activation.
        added_distance: elements from one of its rows to the next.
        scaled: for E4M3 which numbers share a scale, and the scales of the weight and of x.
    """
    graph.flush()
    outputs, inputs = weight.shape
    rows = out.size // outputs
    epilogue = ACTIVATIONS.get(activation or "", _EPILOGUE_NONE if bias is None else 0)
    epilogue |= 0 if bias is None else _EPILOGUE_BIAS
    operands = [each.data.ptr for each in (weight, x, out if added is None else added, out)]
    bits = 256 | operands[0] | operands[1] | operands[2] | operands[3]
    aligned = bits & -bits  # the largest power of two, up to 256, that divides all addresses
    index = cupy.cuda.runtime.getDevice()
    sizes = (outputs, rows, inputs, distance, added_distance)
    scaling = None if scaled is None else scaled[0]
    key = (index, out.dtype, sizes, epilogue, aligned, scaling)
    with _lock:
        plan = _planned(key, lambda: _Plan(_handle(index), out.dtype, sizes, epilogue, aligned, scaling))
        if bias is not None:
            plan.set_bias(bias.data.ptr)
        if scaled is not None:
            plan.set_scales(*(scales.data.ptr for scales in scaled[1:]))
        if plan.uses_before_trial >= 0 and not graph.recording():
            if plan.uses_before_trial == 0:
                plan.try_all(*operands)
            plan.uses_before_trial -= 1
        plan.run(plan.way, *operands)


@functools.cache
def multiplies_fp8() -> bool:
    """Whether this cuBLASLt knows ``ROWS`` and ``BLOCKS``."""
    version = _function("cublasLtGetVersion")
    version.restype = ctypes.c_size_t
    return int(version()) >= 120900


def _layout(kind: int, rows: int, columns: int, distance: int) -> _Owned:
    """Of a matrix, by columns, which lie so many elements apart."""
    return _Owned("MatrixLayout", kind, ctypes.c_uint64(rows), ctypes.c_uint64(columns), ctypes.c_int64(distance))


@functools.cache
def _function(name: str) -> Any:
    """One of the library's functions. What is asked for with every product takes addresses as they are."""
    function = load_library("cublasLt")[name]
    if name in _ARGUMENTS:
        function.argtypes = _ARGUMENTS[name]
    return function


_ARGUMENTS: dict[str, list[Any]] = {
    "cublasLtMatmul": [*[ctypes.c_void_p] * 14, ctypes.c_size_t, ctypes.c_void_p],
    "cublasLtMatmulDescSetAttribute": [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t],
}


@functools.cache
def _handle(index: int) -> ctypes.c_void_p:
    return _made("cublasLtCreate")


def _made(function: str, *arguments: Any) -> ctypes.c_void_p:
    """What one of the library's functions creates."""
    made = ctypes.c_void_p()
    _call(function, ctypes.byref(made), *arguments)
    return made


def _set_attribute(function: str, of: Any, attribute: int, value: Any) -> None:
    _call(function, of, attribute, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value)))


def _call(function: str, *arguments: Any) -> None:
    status = _function(function)(*arguments)
    if status == _LACK:
        raise OutOfMemoryError(lack(function))
    if status:
        raise DeviceError(f"{function} failed with status {status}")
