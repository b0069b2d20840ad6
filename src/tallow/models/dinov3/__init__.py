"""DINOv3: what is in a picture, as vectors (Siméoni et al. 2025, "DINOv3").

``vit.py`` has the vision transformers, ``convnext.py`` their convolutional students, ``vision.py`` what a caller asks
of a model of pictures, ``pictures.py`` how pictures become batches of pixels.
"""

from tallow.models.dinov3.convnext import DINOv3ConvNext, DINOv3ConvNextConfig
from tallow.models.dinov3.pictures import PictureConfig
from tallow.models.dinov3.vision import Features
from tallow.models.dinov3.vit import AttentionMap, DINOv3ViT, DINOv3ViTConfig

__all__ = [
    "AttentionMap",
    "DINOv3ConvNext",
    "DINOv3ConvNextConfig",
    "DINOv3ViT",
    "DINOv3ViTConfig",
    "Features",
    "PictureConfig",
]
