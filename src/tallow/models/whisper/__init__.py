"""Whisper: speech to text (Radford et al. 2022, "Robust speech recognition via large-scale weak supervision").

``model.py`` is the paper's networks; ``whisper.py`` what a caller asks of them; the other files hold one idea each of
how a transcript comes about: ``decoding.py``, ``rules.py`` (what may come next), ``segments.py``, ``words.py``,
``hallucination.py``, and ``transcribe.py``, which slides the window.
"""

from tallow.models.whisper.config import WhisperConfig
from tallow.models.whisper.transcribe import Transcription
from tallow.models.whisper.whisper import Whisper

__all__ = ["Transcription", "Whisper", "WhisperConfig"]
