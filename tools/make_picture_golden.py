"""Makes tests/models/golden/pictures.npz: what Transformers' processor for DINOv3 makes of pictures.

    python tools/make_picture_golden.py

Needs PyTorch, Transformers, and the torchvision that belongs to that PyTorch. The pictures are those of
``tests/models/tiny_dino.py``.
"""

import sys
from pathlib import Path

import numpy as np
from transformers import DINOv3ViTImageProcessor

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
from tests.models import tiny_dino  # noqa: E402

TARGET = ROOT / "tests" / "models" / "golden" / "pictures.npz"


def main():
    golden = {}
    for name, picture in tiny_dino.pictures().items():
        for height, width in tiny_dino.SIZES:
            processor = DINOv3ViTImageProcessor(size={"height": height, "width": width}, do_convert_rgb=True)
            pixels = processor(picture, return_tensors="np")["pixel_values"][0]  # (3, height, width)
            assert pixels.shape == (3, height, width)
            golden[f"{name}/{height}x{width}"] = pixels[:, :: tiny_dino.EVERY, :: tiny_dino.EVERY].astype(np.float16)
    np.savez_compressed(TARGET, **golden)
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
