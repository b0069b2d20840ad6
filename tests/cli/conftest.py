import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import tiny_whisper

SOURCES = Path(__file__).parent.parent.parent / "src"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny Whisper that writes nonsense."""
    lists = {"suppress_tokens": [0], "begin_suppress_tokens": [1]}
    return tiny_whisper.write(tmp_path_factory.mktemp("cli") / "tiny", generation=lists)


@pytest.fixture
def command(tmp_path):
    """Runs ``python -m tallow`` in a folder of its own; returns the finished process."""

    def run(*arguments, **options):
        return subprocess.run(
            [sys.executable, "-m", "tallow", *map(str, arguments)],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, **options,
        )  # fmt: skip

    return run


def environment():
    """This process's, with the sources that are being tested if they are not installed."""
    paths = [str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])] if _from_sources() else []
    extra = {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8", **extra}


def _from_sources():
    import tallow

    return Path(tallow.__file__).is_relative_to(SOURCES)
