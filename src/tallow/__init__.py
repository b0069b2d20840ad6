# ruff: noqa: F403
"""Tallow: a small, fast machine-learning framework for Python.

``import tallow as tl`` costs a millisecond: everything here is imported when it is first used (PEP 562). The functions
of the Python array API standard (2024.12) stand here under its names, with ``tl.linalg`` and ``tl.fft``; the neural
operations in ``tl.ops``, layers in ``tl.nn``, models behind ``tl.load``.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__array_api_version__ = "2024.12"

e = math.e
pi = math.pi
inf = math.inf
nan = math.nan
newaxis = None

# Where each public name lives. The array API's functions are operations of tallow.ops.
_HOMES = {
    "tallow.ops": """abs acos acosh add all any arange argmax argmin argsort asarray asin asinh astype atan atan2 atanh
        bitwise_and bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor broadcast_arrays
        broadcast_to ceil clip concat conj copysign cos cosh count_nonzero cumulative_prod cumulative_sum diff divide
        empty empty_like equal exp expand_dims expm1 eye flip floor floor_divide from_dlpack full full_like greater
        greater_equal hypot imag isfinite isinf isnan less less_equal linspace log log10 log1p log2 logaddexp
        logical_and logical_not logical_or logical_xor matmul matrix_transpose max maximum mean meshgrid min minimum
        moveaxis multiply negative nextafter nonzero not_equal ones ones_like permute_dims positive pow prod real
        reciprocal remainder repeat reshape roll round searchsorted sign signbit sin sinh sort sqrt square squeeze stack
        std subtract sum take take_along_axis tan tanh tensordot tile tril triu trunc unique_all unique_counts
        unique_inverse unique_values unstack var vecdot where zeros zeros_like""",
    "tallow.dtypes": """DType bfloat16 can_cast complex64 complex128 finfo float16 float32 float64 iinfo int8 int16
        int32 int64 isdtype result_type uint8 uint16 uint32 uint64""",
    "tallow.tensor": "Tensor",
    "tallow.device": "Device",
    "tallow.inspection": "__array_namespace_info__",
    "tallow.errors": """ArgumentError BoundsError CaptureError DeviceError DownloadError DTypeError ExchangeError
        MediaError ModelNotFoundError OutOfMemoryError ShapeError TallowError TemplateError WeightsError""",
    "tallow.loading": "load preload",
    "tallow.runtime.gpu": "memory_info synchronize",
    "tallow.models.estimate": "estimate_memory",
    "tallow.runtime.resident": "resident unload",
    "tallow.runtime.threads": "get_num_threads set_num_threads",
    "tallow.weights.safetensors": "save_safetensors",
    "tallow.weights.var_builder": "VarBuilder",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
_MODULES = {
    "fft": "tallow.ops.fft",
    "hub": "tallow.hub",
    "linalg": "tallow.ops.linalg",
    "media": "tallow.media",
    "nn": "tallow.nn",
    "ops": "tallow.ops",
    "search": "tallow.search",
}

__all__ = sorted({*_HOME, *_MODULES, "bool", "e", "inf", "nan", "newaxis", "pi"})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name == "bool":  # which the module itself needs for Python's
        value = importlib.import_module("tallow.dtypes").bool_
    else:
        raise AttributeError(f"module 'tallow' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]


if TYPE_CHECKING:  # the same for type checkers and editors
    from tallow import _cpu as _cpu
    from tallow import dtypes as dtypes
    from tallow import hub as hub
    from tallow import media as media
    from tallow import nn as nn
    from tallow import ops as ops
    from tallow import search as search
    from tallow.device import Device as Device
    from tallow.dtypes import *
    from tallow.errors import *
    from tallow.inspection import __array_namespace_info__ as __array_namespace_info__
    from tallow.loading import load as load
    from tallow.loading import preload as preload
    from tallow.models.estimate import estimate_memory as estimate_memory
    from tallow.ops import fft as fft
    from tallow.ops import linalg as linalg
    from tallow.ops.arithmetic import *
    from tallow.ops.conversion import *
    from tallow.ops.creation import *
    from tallow.ops.functions import *
    from tallow.ops.indexing import *
    from tallow.ops.logic import *
    from tallow.ops.manipulation import *
    from tallow.ops.products import *
    from tallow.ops.searching import *
    from tallow.ops.sorting import *
    from tallow.ops.statistics import *
    from tallow.runtime.gpu import memory_info as memory_info
    from tallow.runtime.gpu import synchronize as synchronize
    from tallow.runtime.resident import resident as resident
    from tallow.runtime.resident import unload as unload
    from tallow.runtime.threads import get_num_threads as get_num_threads
    from tallow.runtime.threads import set_num_threads as set_num_threads
    from tallow.tensor import Tensor as Tensor
    from tallow.weights.safetensors import save_safetensors as save_safetensors
    from tallow.weights.var_builder import VarBuilder as VarBuilder

    bool = dtypes.bool_
