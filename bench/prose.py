"""Ten minutes of speech to measure with: `prose.txt`, which was written for this, spoken by flite."""

import subprocess
import sys
import tempfile
import wave
from pathlib import Path

TEXT = Path(__file__).parent / "prose.txt"


def speak():
    """Let flite (Debian has a package of that name) speak the prose. Returns the file, and its length in minutes."""
    target = Path(tempfile.gettempdir()) / f"tallow-prose-{int(TEXT.stat().st_mtime)}.wav"
    if not target.exists():
        part = target.with_suffix(".part")
        try:
            subprocess.run(["flite", "-voice", "slt", "-f", str(TEXT), "-o", str(part)], check=True)
        except FileNotFoundError:
            sys.exit("flite is not installed: apt install flite")
        part.replace(target)
    with wave.open(str(target)) as file:
        return str(target), file.getnframes() / file.getframerate() / 60
