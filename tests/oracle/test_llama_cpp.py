"""SmolLM2 against llama.cpp, on the same file and in blocks made from the same weights."""

import ctypes

import numpy as np
import pytest

from tallow.convert import convert
from tests.models.perplexity import PAGE, TOKENS, load, perplexity
from tests.models.real_weights import smollm2

llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
pytestmark = pytest.mark.oracle


def theirs(path, ids):
    """Perplexity by llama.cpp, from its logits in double precision."""
    model = llama_cpp.Llama(str(path), n_ctx=2048, n_batch=2048, logits_all=True, verbose=False)
    model.eval(ids)
    scores = np.array(model.scores[: len(ids) - 1], np.float64)
    scores -= scores.max(1, keepdims=True)
    logprobs = scores[np.arange(len(scores)), ids[1:]] - np.log(np.exp(scores).sum(1))
    return np.exp(-logprobs.mean())


def test_perplexity_of_the_same_file():
    model = load(smollm2(), widened=False)
    assert perplexity(model) == pytest.approx(theirs(smollm2(), model.tokenizer.encode(PAGE)[:TOKENS]), rel=0.005)


def test_int4_is_no_worse_than_their_q4_1(tmp_path):
    convert(smollm2(), tmp_path / "wide.gguf", "float32")
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1
    wide, narrow = (str(tmp_path / name).encode() for name in ("wide.gguf", "narrow.gguf"))
    assert llama_cpp.llama_model_quantize(wide, narrow, ctypes.byref(options)) == 0
    model = load(tmp_path / "wide.gguf", quantize="int4")
    assert perplexity(model) <= 1.001 * theirs(tmp_path / "narrow.gguf", model.tokenizer.encode(PAGE)[:TOKENS])
