"""Tests that need a card, run without one, under UndefinedBehaviourSanitizer: see ``emulator``.

Each way through a kernel is compiled anew, which takes longer than to run it, so most kernels are asked for one type.
Tests of products by cuBLASLt check little here, for NumPy makes these.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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

SELECTED = {
    "positions": ("kernels", "(positions or argmax or taken or outside or glu_and or pixels) and not float16"),
    "log-probabilities": ("kernels", "top_logprobs and not float16"),
    "norms": ("kernels", "usual_widths and bfloat16 or side_by_side"),
    "rope": ("kernels", "test_rope and (bfloat16-bfloat16 or 4-2-64-True-float16-float32 or shape2)"),
    # Products of thousands of rows of weights (5000, 9001) would take minutes.
    "matvec": ("kernels", "test_linear and (24-64 or 64-4104) and (1-bfloat16 or 3-bfloat16 or 5-bfloat16)"),
    "other matrices": ("kernels", "lie_apart or any_storage"),
    "a recording": ("kernels", "recording and bfloat16"),
    # Of this card's own kernel a tile takes milliseconds: any shape, as of the portable ones, would take minutes.
    "attention": ("attention", "test_attention and not turns and portable and (float32 or bfloat16)"),
    "windows": (
        "windows",
        "bfloat16 and (split or turned and 90-64 or heads0 and (70-7-64 or 70-100-128 or "
        "portable and (1-1-64 or 3-100-64 or 70-64-24 or 130-100-128)))",
    ),
    "whole heads": (
        "attention",
        "test_whole_heads and bfloat16 and heads1 and True and (turned and 201 or not turned and (1-129 or 256-208))",
    ),
    "masks": ("attention", "fewer_rows and bfloat16 or may_hold_anything and (portable and 64 or card and bfloat16)"),
    "fp8": ("fp8", "(quantised_on or rows_and or glu and 40-5) and bfloat16 or says_nearly or recorded"),
    "what a step says of tokens": ("models", "found_by_the_step or is_cancelled"),
    "a model that writes": ("models", "qwen3_writes and prompts1 or replayed and bfloat16 or goes_on or windows"),
    "norms about one, and GELU gates": ("models", "gemma3"),
    "what a model keeps": ("cache_pool", "serves_the_next or end_early or goes_with or given_up or grows"),
    "what goes back": ("given_back", "given_back"),
    "pages": ("pages", "rows"),
    "on the way": ("fusion", "(bfloat16 or not part_of_what_reads and not in_its_turn) and not linear"),
    "an append on the way": (
        "attend",
        "bfloat16 and (full or grows and (5-None or 1500 or 300-1- or 0-2) and (16-8-128 or 3-1-32))",
    ),
    "launches": ("launch", "takes or threads or together or sources"),
    "copies": ("copy", "bfloat16 or complex128 or repeated or fit"),
    "odd addresses": ("attention", "odd_address and bfloat16"),
    "splits": ("attention", "long_rows"),
    "caches": ("attention", "test_caches and (bfloat16-bfloat16 or portable and 24-float16-float32)"),
    "blocks": ("blocks", "test_products and 7-256 and bfloat16 and (None or 16) and (int8 or q4_1 or q6_k) and not 64"),
    "gated blocks": ("blocks", "gated and bfloat16 and (32-256 or 96-512) and (None or 16) and (int8 or q4_0 or q6_k)"),
    "moved blocks": ("blocks", "moved or move_as or has_not"),
    "moved fp8": ("fp8", "moved"),
    "rows of blocks": ("blocks", "rows_and_the_whole and bfloat16"),
    # A launch takes 20 ms, for its blocks meet: no hundreds of rows, of which there are three in each.
    "sample": ("sample", "reference_draws and bfloat16 or test_ties and (50 or 1.0) or recording_draws"),
    "spectrograms": ("mel", "not every_size or every_size and (35 or 64 or 250 or 441)"),
}  # fmt: skip
"""Which tests of which file run."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where what has been compiled lies for the next test."""
    return tmp_path_factory.mktemp("emulator")


def run(folder, file, selected, timeout=600):
    """Tests of a file that are selected, in a process of their own."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
        "-p", "tests.backends.cuda.emulator.plugin", file, "-k", selected,
    ]  # fmt: skip
    environment = os.environ | {"EMULATOR_FOLDER": str(folder), "CI": "1"}  # the same examples each time
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def runs(folder, request):
    """The runs that are asked for, begun together, as many at a time as there are cores."""
    asked = [item.callspec.params["name"] for item in request.session.items if item.module is request.module]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        selected = {name: SELECTED[name] for name in asked}
        yield {name: pool.submit(run, folder, f"tests/backends/cuda/test_{file}.py", which)
               for name, (file, which) in selected.items()}  # fmt: skip
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", SELECTED)
def test_on_no_card(runs, name):
    done = runs[name].result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
