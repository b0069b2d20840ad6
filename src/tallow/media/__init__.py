"""Sound and pictures in: decoding, resampling, spectrograms."""

from tallow.media.audio import AudioReader, load_audio
from tallow.media.image import load_image
from tallow.media.mel import LogMelWindows, mel_filters

__all__ = ["AudioReader", "LogMelWindows", "load_audio", "load_image", "mel_filters"]
