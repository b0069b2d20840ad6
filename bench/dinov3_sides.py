"""DINOv3 on every side: the same random weights and pixels, which are normalised already, to vectors of length 1."""

MAKE = """
import os, sys, numpy as np, torch
from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel
folder, dim, heads, layers = sys.argv[1], *map(int, sys.argv[2:])
torch.manual_seed(0)
config = DINOv3ViTConfig(hidden_size=dim, num_attention_heads=heads, num_hidden_layers=layers,
                         intermediate_size=4 * dim, num_register_tokens=4)
model = DINOv3ViTModel(config).eval()
model.save_pretrained(folder)
class Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model
    def forward(self, pixels):
        return self.model(pixels).pooler_output
for batch in (1, 8):
    pixels = torch.from_numpy(np.random.default_rng(batch).standard_normal((batch, 3, 224, 224), np.float32))
    np.save(os.path.join(folder, f"pixels{batch}.npy"), pixels.numpy())
    torch.onnx.export(Pooled(), (pixels,), os.path.join(folder, f"model{batch}.onnx"), dynamo=True, verbose=False)
"""
_PIXELS = """
import os, sys, numpy as np
from common import serve
folder, batch, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
pixels = np.load(os.path.join(folder, f"pixels{batch}.npy"))
def vectors(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()
"""
OURS = (
    _PIXELS
    + """
import tallow as tl
tl.set_num_threads(threads)
vit = tl.load(folder, device="cpu", quantize=None if sys.argv[4] == "float32" else sys.argv[4])
pictures = tl.asarray(pixels)
serve(lambda: vit.embed(pictures).tolist())
"""
)
TORCH = (
    _PIXELS
    + """
import torch
from transformers import DINOv3ViTModel
torch.set_num_threads(threads)
torch.set_grad_enabled(False)
vit, pictures = DINOv3ViTModel.from_pretrained(folder).eval(), torch.from_numpy(pixels)
serve(lambda: vectors(vit(pictures).pooler_output.numpy()))
"""
)
ONNX = (
    _PIXELS
    + """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(os.path.join(folder, f"model{batch}.onnx"), options, ["CPUExecutionProvider"])
name = session.get_inputs()[0].name
serve(lambda: vectors(session.run(None, {name: pixels})[0]))
"""
)


def operations(dim, layers, patches=196, tokens=201, patch=16):
    """Floating-point operations for one picture, two for every multiply-add.

    The patch embedding 2·patches·3·patch²·d; each layer 2n·(4d² + 8d²) + 4n²d with n tokens.
    """
    layer = 24 * tokens * dim * dim + 4 * tokens * tokens * dim
    return 6 * patches * patch * patch * dim + layers * layer
