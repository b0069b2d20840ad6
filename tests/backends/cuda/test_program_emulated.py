"""program.cu on the CPU, under UndefinedBehaviourSanitizer: see ``emulator``."""

import os
import shutil
import subprocess
import sys

import pytest

HALF = "#include <atomic>\n_Float16 x; int y; auto z = std::atomic_ref<int>(y).load();"


def has_compiler():
    command = ["c++", "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    return shutil.which("c++") is not None and subprocess.run(command, input=HALF, text=True).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not has_compiler(), reason="needs Linux and a compiler with _Float16"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where what has been compiled lies for the next test."""
    return tmp_path_factory.mktemp("emulator")


def run(folder, name, *arguments):
    command = [sys.executable, "-m", f"tests.backends.cuda.emulator.{name}", *map(str, arguments)]
    environment = os.environ | {"EMULATOR_FOLDER": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("rows", "held", "capacity", "steps"),
    [(1, 5, 40, 3), (3, 0, 40, 2), (8, 30, 40, 2), (1, 700, 1000, 2), (1, 39, 40, 3)],
    ids=["one", "rows that begin", "many rows", "keys split among blocks", "a full cache"],
)
def test_a_decoder(folder, rows, held, capacity, steps):
    run(folder, "decoder", rows, held, capacity, steps)


@pytest.mark.parametrize(
    ("storage", "rows", "outputs", "inputs"),
    [("bfloat16", 1, 50, 4104), ("bfloat16", 2, 1000, 72), ("q4_1", 1, 96, 1024), ("q6_k", 3, 64, 512),
     ("int8", 2, 96, 320)],
)  # fmt: skip
def test_linear(folder, storage, rows, outputs, inputs):
    run(folder, "linear", storage, rows, outputs, inputs)
