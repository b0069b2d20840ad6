"""Runs the examples in the docstrings of the reference, and asks for them of what people begin with."""

import doctest

import pytest

import tallow as tl
from tests.docs.test_reference import PAGES, entries, resolve

BEGINNING = [
    "Device", "KVCache", "LanguageModel", "Linear", "Module", "Tensor", "VarBuilder", "arange", "argmax", "asarray",
    "attention", "concat", "conv1d", "embedding", "glu", "l2_normalize", "layer_norm", "linear", "matmul", "mean",
    "mel_spectrogram", "reshape", "rfft", "rms_norm", "rope", "save_safetensors", "softmax", "solve", "sort", "stack",
    "sum", "take", "top_k", "where", "zeros",
]  # fmt: skip


def examples(name, value):
    """Those of an object, and of a class's methods."""
    found = doctest.DocTestFinder(exclude_empty=True).find(value, name, globs={"tl": tl})
    return [test for test in found if test.examples]


DOCUMENTED = {name: getattr(resolve(path), name) for page in PAGES for path, name in entries(page)}
TESTS = {test.name: test for name, value in DOCUMENTED.items() for test in examples(name, value)}


@pytest.mark.parametrize("name", TESTS)
def test_examples(name):
    printed = []
    result = doctest.DocTestRunner(verbose=False).run(TESTS[name], out=printed.append)
    assert result.attempted
    assert not result.failed, "".join(printed)


@pytest.mark.parametrize("name", BEGINNING)
def test_what_people_begin_with_has_examples(name):
    assert name in TESTS
