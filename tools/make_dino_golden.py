"""Makes tests/models/golden/dinov3.npz: what Transformers' DINOv3 makes of pixels, layer by layer.

    python tools/make_dino_golden.py

Needs PyTorch and Transformers. The weights are random and those of ``tests/models/tiny_dino.py``.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
from tests.models import tiny_dino  # noqa: E402

TARGET = ROOT / "tests" / "models" / "golden" / "dinov3.npz"


def main():
    golden = {}
    for kind in tiny_dino.CONFIGS:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            tiny_dino.write(Path(folder), kind)
            looks = kind != "convnext"
            options = {"attn_implementation": "eager"} if looks else {}
            model = AutoModel.from_pretrained(folder, **options).eval()
            pixels = np.random.default_rng(5).standard_normal((2, 3, 32, 48)).astype(np.float32)
            seen = model(
                torch.from_numpy(pixels), output_hidden_states=True, **({"output_attentions": True} if looks else {})
            )
        for i, state in enumerate(seen.hidden_states):
            # Tokens (b, n, dim); a ConvNeXt's are maps (b, dim, h, w), the first of them the pixels.
            golden[f"{kind}/state{i}"] = (state[:, ::3] if looks else state[:, ::5]).numpy()
        golden[f"{kind}/tokens"] = seen.last_hidden_state[:, ::3].numpy()
        if looks:
            golden[f"{kind}/attention"] = seen.attentions[1][0, 1].numpy()
    np.savez_compressed(TARGET, **golden)
    print(TARGET, TARGET.stat().st_size, "bytes", {name: value.shape for name, value in golden.items()})


if __name__ == "__main__":
    main()
