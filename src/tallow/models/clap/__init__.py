"""CLAP: sounds and texts in one space (Wu et al. 2023, "Large-scale contrastive language-audio pretraining with feature
fusion and keyword-to-caption augmentation").

``audio.py`` and ``text.py`` are the two encoders, ``features.py`` what the first is shown of a recording, ``clap.py``
what a caller asks of them.
"""

from tallow.models.clap.clap import Clap, Label
from tallow.models.clap.config import AudioConfig, ClapConfig, FeatureConfig, TextConfig

__all__ = ["AudioConfig", "Clap", "ClapConfig", "FeatureConfig", "Label", "TextConfig"]
