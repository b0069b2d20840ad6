"""Weights to a safetensors file and back.

python examples/save_weights.py [FILE]
"""

import sys

import tallow as tl
from tallow import nn

path = sys.argv[1] if len(sys.argv) > 1 else "weights.safetensors"

layer = nn.Linear(3, 2, tl.VarBuilder.random(seed=1))
tl.save_safetensors(layer.state_dict(), path, metadata={"made by": "examples/save_weights.py"})

vb = tl.VarBuilder.from_safetensors(path)  # the file is mapped, and nothing is read that nobody asks for
print(sorted(vb.names()))
again = nn.Linear(3, 2, vb)

x = tl.asarray([[1.0, 2.0, 3.0]])
print(layer(x))
assert tl.all(again(x) == layer(x))

# Whatever does not fit says what was asked for and what was found.
try:
    nn.Linear(4, 2, vb)
except tl.WeightsError as error:
    print("error:", error)
