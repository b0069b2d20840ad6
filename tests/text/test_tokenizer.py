"""Ids and text, against a small byte-level BPE vocabulary that the test itself trains."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, pre_tokenizers, trainers
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE

from tallow.errors import ModelNotFoundError, WeightsError
from tallow.text.tokenizer import Tokenizer

TEXT = ["the cat sat on the mat, the cat ran", "naïve café — 東京は晴れ, 東京は雨", "don't stop; can't stop"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    encoder = Encoder(BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    encoder.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    encoder.add_special_tokens([AddedToken("<|endoftext|>", special=True), AddedToken("<|start|>", special=True)])
    encoder.add_tokens([AddedToken("<|0.00|>", special=False)])
    path = tmp_path_factory.mktemp("tokenizer")
    encoder.save(str(path / "tokenizer.json"))
    encoder.model.save(str(path))
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_folder(folder)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_decoding_undoes_encoding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 319), max_size=30))
def test_ids_decode_as_the_tokenizers_library_decodes_them(tokenizer, folder, ids):
    expected = Encoder.from_file(str(folder / "tokenizer.json")).decode(ids, skip_special_tokens=True)
    assert tokenizer.decode(ids) == expected


def test_text_that_looks_like_a_special_token_is_text_unless_asked_otherwise(tokenizer):
    end = tokenizer.id("<|endoftext|>")
    text = "a <|endoftext|> b <|0.00|>"
    ids = tokenizer.encode(text)
    assert end not in ids
    assert tokenizer.id("<|0.00|>") not in ids
    assert tokenizer.decode(ids) == text
    assert end in tokenizer.encode(text, special=True)


def test_special_tokens_are_left_out_of_the_text_or_shown(tokenizer):
    ids = [*tokenizer.encode("cat"), tokenizer.id("<|endoftext|>")]
    assert tokenizer.decode(ids) == "cat"
    assert tokenizer.decode(ids, skip_special=False) == "cat<|endoftext|>"


def test_a_stream_never_shows_half_a_character(tokenizer):
    ids = tokenizer.encode("é東🎈")
    stream = tokenizer.stream()
    pieces = [stream.add(id) for id in ids]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + stream.end() == "é東🎈"


def test_a_stream_that_stops_inside_a_character_says_so(tokenizer):
    stream = tokenizer.stream()
    assert stream.add(tokenizer.encode("🎈")[0]) == ""
    assert stream.end() == "\ufffd"


def test_an_id_of_no_token_is_no_text(tokenizer):
    assert tokenizer.decode([10**6, *tokenizer.encode("cat")]) == "cat"


def test_vocabulary_and_merges_do_instead_of_tokenizer_json(folder, tokenizer, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    added = {"<|endoftext|>": tokenizer.id("<|endoftext|>"), "<|start|>": tokenizer.id("<|start|>")}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    other = Tokenizer.from_folder(tmp_path)
    for text in TEXT:
        assert other.encode(text) == tokenizer.encode(text)
        assert other.decode(other.encode(text)) == text
    assert other.special == set(added.values())
    assert other.encode("<|start|>cat", special=True)[0] == added["<|start|>"]


def test_the_order_in_a_tokenizer_json_does_not_matter(folder, tokenizer, tmp_path):
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"] = dict(reversed(data["model"].items()))
    (tmp_path / "tokenizer.json").write_text(json.dumps(dict(reversed(data.items()))))
    other = Tokenizer.from_folder(tmp_path)
    assert other.special == tokenizer.special
    for text in TEXT:
        assert other.decode(other.encode(text)) == text


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        '{"model": {"vocab": [1, 2]}, "decoder": {"type": "ByteLevel"}}',
        '{"model": {"vocab": {"a": -1}}, "decoder": {"type": "ByteLevel"}}',
        '{"model": {"vocab": {"a": "b"}}, "decoder": {"type": "ByteLevel"}}',
        '{"model": {"vocab": {"a": 1}}, "decoder": {"type": "ByteLevel"}, "added_tokens": [{"id": 1}]}',
        '{"model": {"vocab": {"a": 1}}, "decoder": {"type": "ByteLevel"}, "added_tokens":[{"id": "", "content": "b"}]}',
        '{"model": {"type": "WordPiece", "vocab": {"a": 1}}, "decoder": {"type": "WordPiece"}}',
    ],
)
def test_a_damaged_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


def test_a_tokenizer_that_only_the_library_refuses_is_refused_when_it_encodes(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 1}}, "decoder": {"type": "ByteLevel"}}')
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.decode([1]) == "a"
    with pytest.raises(WeightsError, match="cannot read"):
        tokenizer.encode("a")
