"""Models on an emulated card against Transformers, in float32: see ``tests.backends.cuda.emulator``."""

import os
import subprocess
import sys

import pytest

from tests.backends.cuda.test_program_emulated import pytestmark as needs_compiler

pytest.importorskip("torch", reason="needs the extra oracle")
pytest.importorskip("transformers", reason="needs the extra oracle")
pytestmark = [pytest.mark.oracle, *needs_compiler]


def test_models_on_no_card(tmp_path):
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.backends.cuda.emulator.plugin",
        "tests/oracle/test_cards.py", "-k", "float32 and (small or htsat or tiny)",
    ]  # fmt: skip
    environment = os.environ | {"EMULATOR_FOLDER": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
