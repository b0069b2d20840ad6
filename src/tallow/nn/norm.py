"""Normalisation layers."""

from __future__ import annotations

from tallow import ops
from tallow.nn.module import Module
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder


class LayerNorm(Module):
    """Layer normalisation over the last axis (Ba et al. 2016).

    Args:
        dim: width of the last axis.
        vb: weights ``weight`` and ``bias``, each (dim,).
        eps: added to the variance.
    """

    def __init__(self, dim: int, vb: VarBuilder, eps: float = 1e-5) -> None:
        self.weight = vb.get((dim,), "weight")
        self.bias = vb.get((dim,), "bias")
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) -> (…, dim)."""
        return ops.layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Its width."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class RMSNorm(Module):
    """Root-mean-square normalisation over the last axis (Zhang and Sennrich 2019).

    Args:
        dim: width of the last axis.
        vb: weight ``weight`` (dim,).
        eps: added to the mean square.
        offset: added to the weight, which is then kept in float32: Gemma's are trained about 0 instead of 1.

    Attributes:
        dtype: of the weight as the builder gave it, which is that of a model's activations.
    """

    def __init__(self, dim: int, vb: VarBuilder, eps: float = 1e-6, offset: float = 0.0) -> None:
        weight = vb.get((dim,), "weight")
        self.dtype = weight.dtype
        self.weight = weight.float() + offset if offset else weight
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) -> (…, dim)."""
        return ops.rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Its width."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class BatchNorm(Module):
    """Batch normalisation (Ioffe and Szegedy 2015) by the mean and variance of training: an affine map.

    Args:
        dim: channels.
        vb: weights ``weight``, ``bias``, ``running_mean`` and ``running_var``, each (dim,).
        eps: added to the variance.
    """

    def __init__(self, dim: int, vb: VarBuilder, eps: float = 1e-5) -> None:
        weight, bias, mean, variance = (
            vb.get((dim,), name) for name in ("weight", "bias", "running_mean", "running_var")
        )
        self.scale = weight / (variance + eps).sqrt()
        self.shift = bias - mean * self.scale

    def __call__(self, x: Tensor, axis: int = 1) -> Tensor:
        """(…, dim, …) -> (…, dim, …), the channels along ``axis``."""
        shape = [1] * x.ndim
        shape[axis] = self.scale.shape[0]
        return x * self.scale.reshape(shape) + self.shift.reshape(shape)

    def extra_repr(self) -> str:
        """Its width."""
        return str(self.scale.shape[0])
