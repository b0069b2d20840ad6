"""Models on an emulated card against Transformers, in float32: see ``tests.backends.cuda.emulator``."""

import pytest

from tests.backends.cuda.test_kernels_emulated import pytestmark as needs_compiler
from tests.backends.cuda.test_kernels_emulated import run

pytest.importorskip("torch", reason="needs the extra oracle")
pytest.importorskip("transformers", reason="needs the extra oracle")
pytestmark = [pytest.mark.oracle, *needs_compiler]


def test_models_on_no_card(tmp_path):
    done = run(tmp_path, "tests/oracle/test_gpu.py", "float32 and (small or htsat or tiny)", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
