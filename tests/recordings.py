"""Recordings that tests transcribe: speech that comes with the sources, and a long one made of it."""

from pathlib import Path

import numpy as np
import pytest

from tallow.media.audio import load_audio

RATE = 16_000
ROOT = Path(__file__).parent.parent


def harbour():
    """14 seconds: the example of the README."""
    return load_audio(ROOT / "examples" / "harbour.flac", RATE).numpy()


def jfk():
    """11 seconds of President Kennedy's inaugural address, from ``shared/data`` beside or above the sources."""
    places = [folder / "shared" / "data" / "jfk.flac" for folder in (ROOT, *ROOT.parents)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        pytest.skip("shared/data/jfk.flac is not here")
    return load_audio(found, RATE).numpy()


def long():
    """80 seconds: the example five times, at different volumes, between pauses of different lengths."""
    speech = harbour()
    parts = []
    for i, pause in enumerate((0.3, 1.1, 0.0, 2.4, 4.0)):
        parts += [speech * np.float32(0.9 ** (2 * i)), np.zeros(round(pause * RATE), np.float32)]
    return np.concatenate(parts)
