"""Modules: layers that hold weights and call operations."""

from tallow.nn.conv import Conv1d, Conv2d
from tallow.nn.embedding import Embedding
from tallow.nn.linear import Linear, StackedLinear
from tallow.nn.mlp import GatedMLP
from tallow.nn.module import Module
from tallow.nn.norm import BatchNorm, LayerNorm, RMSNorm
from tallow.nn.rope import RotaryEmbedding

__all__ = [
    "BatchNorm", "Conv1d", "Conv2d", "Embedding", "GatedMLP", "LayerNorm", "Linear", "Module", "RMSNorm",
    "RotaryEmbedding", "StackedLinear",
]  # fmt: skip
