import math

import numpy as np
import pytest

from tallow import ops
from tallow.errors import ArgumentError
from tallow.tensor import Tensor

from .small_model import small_model

TEXTS = ["the cat sat", "a", "naïve café, 東京 and the mat " * 4, "the cat"]


@pytest.fixture(scope="module")
def model():
    return small_model()


def hidden(model, ids):
    return model.forward(Tensor(np.array([ids])), model.new_cache(1, len(ids)))


def test_embeddings_are_of_the_last_token_and_of_length_1(model):
    vectors = model.embed(TEXTS)
    assert vectors.shape == (4, 64)
    for vector, text in zip(vectors.numpy(), TEXTS, strict=True):
        last = hidden(model, model.tokenizer.encode(text)).numpy()[0, -1]
        np.testing.assert_array_equal(vector, model.embed(text).numpy())
        np.testing.assert_allclose(vector, last / np.linalg.norm(last), rtol=1e-5)


def test_batches_change_nothing(model):
    expected = model.embed(TEXTS).numpy()
    for size in (1, 2, 3):
        np.testing.assert_array_equal(model.embed(TEXTS, batch_size=size).numpy(), expected)


def test_instructions_and_dimensions(model):
    told = model.embed("the cat", instruction="Find mats")
    np.testing.assert_array_equal(told.numpy(), model.embed("Instruct: Find mats\nQuery:the cat").numpy())
    few = model.embed(TEXTS, dims=16).numpy()
    whole = model.embed(TEXTS).numpy()[:, :16]
    assert few.shape == (4, 16)
    np.testing.assert_allclose(few, whole / np.linalg.norm(whole, axis=1, keepdims=True), rtol=1e-5)


def test_texts_that_are_too_long_or_empty(model):
    with pytest.raises(ArgumentError, match=r"text has [\d,]+ tokens.*holds 256"):
        model.embed("東京" * 300)
    cut = model.embed("東京" * 300, truncate=True).numpy()
    ids = model.tokenizer.encode("東京" * 300)[:256]
    last = hidden(model, ids).numpy()[0, -1]
    np.testing.assert_allclose(cut, last / np.linalg.norm(last), rtol=1e-5)
    with pytest.raises(ArgumentError, match="empty text"):
        model.embed("")
    assert model.embed([]).shape == (0, 64)
    for dims in (0, 65):
        with pytest.raises(ArgumentError, match="dims"):
            model.embed("a", dims=dims)


def test_the_end_token_of_embedding_models_survives_a_cut(model, monkeypatch):
    end = model.tokenizer.id("<|im_end|>")
    monkeypatch.setattr(model.tokenizer, "_around", ([], [end]), raising=False)
    ids = [*model.tokenizer.encode("東京" * 300)[:255], end]
    last = hidden(model, ids).numpy()[0, -1]
    cut = model.embed("東京" * 300, truncate=True).numpy()
    np.testing.assert_allclose(cut, last / np.linalg.norm(last), rtol=1e-5)


def test_perplexity(model):
    text = "the cat sat on the mat " * 20
    ids = model.tokenizer.encode(text)
    scores = ops.log_softmax(model.logits(hidden(model, ids))).numpy()[0]
    expected = scores[np.arange(len(ids) - 1), ids[1:]]
    for said in (text, ids):
        score = model.score(said)
        assert score.ids == ids
        np.testing.assert_allclose(score.logprobs, expected, atol=1e-5)
        assert score.perplexity == pytest.approx(math.exp(-expected.astype(np.float64).mean()), rel=1e-5)


@pytest.mark.parametrize("text", ["a", [3], [1] * 257])
def test_texts_that_cannot_be_scored(model, text):
    with pytest.raises(ArgumentError, match="score: the text has"):
        model.score(text)
