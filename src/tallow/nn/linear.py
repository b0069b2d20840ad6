"""Linear layers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from tallow import ops
from tallow.nn.module import Module
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder


class Linear(Module):
    """``x @ weight.T + bias``.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        vb: weights ``weight`` (out, in) and, if ``bias``, ``bias`` (out,).
        bias: whether there is one.
        scale: what the outputs are multiplied by, (out,), or None. On a card weight and bias take it in, so that no
            kernel has to follow the product.

    Examples:
        >>> layer = tl.nn.Linear(4, 3, tl.VarBuilder.random())
        >>> layer
        Linear(4, 3, bias=True, float32)
        >>> layer(tl.ones((2, 4)), activation="silu").shape
        (2, 3)
    """

    def __init__(
        self, in_features: int, out_features: int, vb: VarBuilder, *, bias: bool = True, scale: Tensor | None = None
    ) -> None:
        taken_in = scale is not None and vb.device.kind != "cpu"
        vb = vb if scale is None or not taken_in else vb.scaled(scale)
        self.scale = None if taken_in else scale
        self.weight = vb.weight((out_features, in_features))
        self.bias = vb.get((out_features,), "bias") if bias else None

    def __call__(self, x: Tensor, *, activation: str | None = None, residual: Tensor | None = None) -> Tensor:
        """(…, in) -> (…, out); activation and residual are fused, see ``ops.linear``."""
        return ops.linear(x, self.weight, self.bias, activation=activation, scale=self.scale, residual=residual)

    def extra_repr(self) -> str:
        """Its sizes and storage."""
        out, inner = self.weight.shape
        return f"{inner}, {out}, bias={self.bias is not None}, {self.weight.storage}"


class StackedLinear(Module):
    """Several projections of one input, computed in as few products as the storage of their weights allows.

    Args:
        in_features: width of the input.
        outs: name of each projection and the width of its output, in the order in which they are wanted.
        vb: weights ``NAME.weight`` (out, in) and, if ``bias``, ``NAME.bias`` (out,).
        bias: whether they have one, or the names of those that do; other names mean nothing.
    """

    def __init__(
        self, in_features: int, outs: Mapping[str, int], vb: VarBuilder, *, bias: bool | Collection[str] = False
    ) -> None:
        groups = [list(names) for _, names in itertools.groupby(outs, lambda name: vb.storage(f"{name}.weight"))]
        self.widths = [[outs[name] for name in names] for names in groups]
        self.weights = [
            vb.weight((sum(widths), in_features), [f"{name}.weight" for name in names], rows=widths)
            for names, widths in zip(groups, self.widths, strict=True)
        ]
        biased = (outs.keys() if bias else ()) if isinstance(bias, bool) else bias

        found = {name: vb.get((outs[name],), f"{name}.bias") for name in outs if name in biased}
        dtype = next((bias.dtype for bias in found.values()), None)

        def get(name: str) -> Tensor:
            return found[name] if name in biased else ops.zeros(outs[name], dtype=dtype, device=vb.device)

        self.biases = [
            ops.concat([get(name) for name in names]) if any(name in biased for name in names) else None
            for names in groups
        ]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """(…, in) -> (…, out) for each projection; views of one result where they were computed together."""
        results: list[Tensor] = []
        for weight, bias, widths in zip(self.weights, self.biases, self.widths, strict=True):
            results += ops.linear(x, weight, bias).split(widths, axis=-1)
        return results

    def extra_repr(self) -> str:
        """Its sizes and storage."""
        outs = " + ".join(str(width) for widths in self.widths for width in widths)
        storages = ", ".join(weight.storage for weight in self.weights)
        return f"{self.weights[0].shape[1]}, {outs}, bias={self.biases[0] is not None}, {storages}"
