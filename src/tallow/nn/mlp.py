"""BatchUploader-forward layers."""

from __future__ import annotations

from collections.abc import Collection

from tallow import ops
from tallow.nn.linear import Linear, StackedLinear
from tallow.nn.module import Module
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder


class GatedMLP(Module):
    """``down(activation(gate(x)) · up(x))`` (Shazeer 2020, "GLU variants improve transformer").

    Args:
        dim: width.
        hidden: width between.
        vb: weights ``gate_proj``, ``up_proj`` (hidden, dim) and ``down_proj`` (dim, hidden).
        bias: whether the three have biases, or the names of those that do; other names mean nothing.
        activation: of the gates, as for ``ops.glu``.
        scale: what the result is multiplied by, feature by feature, before a residual is added: (dim,), or None.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        vb: VarBuilder,
        *,
        bias: bool | Collection[str] = False,
        activation: str = "silu",
        scale: Tensor | None = None,
    ) -> None:
        self.activation = activation
        self.gate_up = StackedLinear(dim, {"gate_proj": hidden, "up_proj": hidden}, vb, bias=bias)
        self.down = Linear(
            hidden, dim, vb.pp("down_proj"), bias=bias if isinstance(bias, bool) else "down_proj" in bias, scale=scale
        )

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(…, dim) -> (…, dim), the residual added."""
        if len(self.gate_up.weights) == 1 and self.gate_up.biases[0] is None:
            y = ops.linear_glu(x, self.gate_up.weights[0], self.activation)
        else:
            gate, up = self.gate_up(x)
            y = ops.glu(gate, up, self.activation)
        return self.down(y, residual=residual)
