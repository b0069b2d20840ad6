"""A network of your own: a module asks a VarBuilder for its weights by name and shape.

    python examples/own_module.py

Random weights will do to try it; `VarBuilder.from_safetensors("model.safetensors")` gives those of a file.
"""

import tallow as tl
from tallow import nn, ops


class Block(nn.Module):
    """A Transformer's layer: attention and an MLP, each on normalised input, added to what came in.

    Args:
        dim: width.
        heads: of the attention; must divide ``dim``.
        vb: weights ``norm1``, ``qkv``, ``out``, ``norm2``, ``up``, ``down``.
    """

    def __init__(self, dim: int, heads: int, vb: tl.VarBuilder) -> None:
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, vb.pp("norm1"))
        self.qkv = nn.Linear(dim, 3 * dim, vb.pp("qkv"))
        self.out = nn.Linear(dim, dim, vb.pp("out"))
        self.norm2 = nn.LayerNorm(dim, vb.pp("norm2"))
        self.up = nn.Linear(dim, 4 * dim, vb.pp("up"))
        self.down = nn.Linear(4 * dim, dim, vb.pp("down"))

    def __call__(self, x: tl.Tensor) -> tl.Tensor:
        """(b, n, dim) -> (b, n, dim)."""
        b, n, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, -1).unstack(axis=2)  # each (b, n, heads, …)
        x = self.out(ops.attention(q, k, v, causal=True).reshape(b, n, dim), residual=x)
        return self.down(self.up(self.norm2(x), activation="gelu"), residual=x)


class Classifier(nn.Module):
    """Which of several classes a sequence of tokens belongs to."""

    def __init__(self, vocabulary: int, classes: int, dim: int, layers: int, vb: tl.VarBuilder) -> None:
        self.tokens = nn.Embedding(vocabulary, dim, vb.pp("tokens"))
        self.layers = [Block(dim, dim // 16, vb.pp("layers").pp(i)) for i in range(layers)]
        self.head = nn.Linear(dim, classes, vb.pp("head"))

    def __call__(self, ids: tl.Tensor) -> tl.Tensor:
        """ids (b, n) -> probabilities (b, classes)."""
        x = self.tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return ops.softmax(self.head(x.mean(axis=1)))


model = Classifier(vocabulary=100, classes=4, dim=64, layers=2, vb=tl.VarBuilder.random(seed=0))
print(model)
print(f"{model.parameter_count():,} parameters, {model.nbytes:,} bytes")

ids = tl.asarray([[5, 17, 42, 8], [99, 3, 3, 1]])
print(model(ids))

# The same weights, one byte each instead of four:
small = Classifier(vocabulary=100, classes=4, dim=64, layers=2, vb=tl.VarBuilder.random(seed=0, quantize="int8"))
print(f"int8: {small.nbytes:,} bytes, largest difference {tl.max(tl.abs(small(ids) - model(ids))).item():.4f}")
