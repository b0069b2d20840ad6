"""SentencePiece vocabularies: against the tokenizers library for files, against the definition for scores."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE

from tallow.errors import WeightsError
from tallow.text.gguf_tokenizer import gguf_tokenizer
from tallow.text.language import Text
from tallow.text.sentencepiece import SentencePieceTokenizer, merges_of
from tallow.text.tokenizer import Tokenizer
from tallow.text.tokenizer_export import gguf_text

from .vocabularies import strings

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["▁", "a", "b", "c", "t", "h", "e", "ab", "▁a", "th", "the", "▁the", "▁t", "he", "bc", "abc", "é", "▁▁", "ca"]
TOKENS = ["<unk>", "<s>", "</s>", *BYTES, *PIECES]
SCORES = [0.0] * 259 + [-float(i) for i in range(len(PIECES))]
VOCAB = {token: id for id, token in enumerate(TOKENS)}
TYPES = [2, 3, 3] + [6] * 256 + [1] * len(PIECES)


@pytest.fixture(scope="module")
def library():
    model = BPE(VOCAB, merges_of(VOCAB, SCORES), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    encoder = Encoder(model)
    encoder.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    encoder.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    encoder.add_special_tokens([AddedToken("<s>", special=True, normalized=False), AddedToken("</s>", special=True)])
    encoder.post_processor = processors.TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", 1)])
    return encoder


@pytest.fixture(scope="module")
def from_file(library, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    library.save(str(path))
    return Tokenizer.from_file(path)


def metadata(**changes):
    said = {"model": "llama", "tokens": strings(TOKENS), "scores": np.float32(SCORES), "token_type": np.int32(TYPES),
            "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in (said | changes).items() if value is not None}


def by_definition(text):
    """Join the pair whose result scores highest, the leftmost of equals, until none is left."""
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [left + right for left, right in itertools.pairwise(parts)]
        joined = [(SCORES[VOCAB[pair]], -i) for i, pair in enumerate(pairs) if pair in VOCAB]
        if not joined:
            break
        at = -max(joined)[1]
        parts[at : at + 2] = [pairs[at]]
    ids = [[VOCAB[part]] if part in VOCAB else [VOCAB[BYTES[byte]] for byte in part.encode()] for part in parts]
    return [id for group in ids for id in group]


TEXTS = st.text(alphabet="abcthe é\n😀", max_size=20)


@settings(max_examples=200, deadline=None)
@given(TEXTS.filter(bool))
def test_scores_mean_what_sentencepiece_means_by_them(text):
    assert gguf_tokenizer(metadata(), "x").encode(text) == by_definition(text)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_a_text_comes_back(from_file, text):
    tokenizer = gguf_tokenizer(metadata(), "x")
    for kind in (tokenizer, from_file):
        ids = kind.encode(text)
        assert kind.decode(ids) == text
        stream = kind.stream()
        assert "".join([*map(stream.add, ids), stream.end()]) == text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(TOKENS) - 1), max_size=12))
def test_ids_decode_as_the_library_decodes_them(library, from_file, ids):
    assert isinstance(from_file, SentencePieceTokenizer)
    ours, theirs = from_file.decode(ids), library.decode(ids)
    if "\ufffd" not in ours + theirs:  # of a broken character the library makes one mark for each byte
        assert ours == theirs


def test_what_is_put_around_a_text(library, from_file):
    assert from_file.encode("the", around=True) == library.encode("the").ids == [1, VOCAB["▁the"]]
    assert gguf_tokenizer(metadata(), "x").encode("the", around=True) == [1, VOCAB["▁the"]]
    assert gguf_tokenizer(metadata(add_bos_token=False), "x").encode("the", around=True) == [VOCAB["▁the"]]
    assert gguf_tokenizer(metadata(add_eos_token=True), "x").encode("the", around=True) == [1, VOCAB["▁the"], 2]
    assert gguf_tokenizer(metadata(add_space_prefix=False), "x").encode("the") == [VOCAB["the"]]


def test_special_tokens_are_text_unless_asked_otherwise():
    tokenizer = gguf_tokenizer(metadata(), "x")
    assert tokenizer.encode("a</s>", special=True) == [VOCAB["▁a"], 2]
    assert 2 not in tokenizer.encode("a</s>")


def test_special_tokens_that_are_mere_text_get_no_space_inside():
    tokenizer = gguf_tokenizer(metadata(), "x")
    for text in ("a</s>", "<s>", "the<s>the</s> a"):
        ids = tokenizer.encode(text)
        assert ids == by_definition(text)
        assert tokenizer.decode(ids) == text


def test_a_control_token_is_not_made_by_merges():
    pieces = [*PIECES, "</", "s>"]
    tokens, types = [*TOKENS, "</", "s>"], [*TYPES, 1, 1]
    scores = np.float32([0.0] * 259 + [-float(i) for i in range(len(pieces))])
    tokenizer = gguf_tokenizer(metadata(tokens=strings(tokens), scores=scores, token_type=np.int32(types)), "x")
    ids = tokenizer.encode("a</s>")
    assert 2 not in ids
    assert tokenizer.decode(ids) == "a</s>"


def test_ids_that_a_file_leaves_to_its_kind():
    tokenizer = gguf_tokenizer(metadata(bos_token_id=None, eos_token_id=None, unknown_token_id=None), "x")
    assert tokenizer.before == [1]
    assert gguf_tokenizer(metadata(bos_token_id=10**6), "x").before == [1]
    assert gguf_tokenizer(metadata(eos_token_id=None, add_eos_token=True), "x").after == [2]


def decoders_of(kind):
    undo = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return {"strip": decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)]), "none": decoders.Sequence(undo),
            "always": decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]),
            "first": decoders.Metaspace(prepend_scheme="first"),
            "never": decoders.Metaspace(prepend_scheme="never")}[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["strip", "none", "always", "first", "never"])
def test_the_first_space_of_a_text_goes_only_if_the_decoder_takes_it(library, tmp_path, kind):
    other = Encoder.from_str(library.to_str())
    other.decoder = decoders_of(kind)
    other.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(tmp_path)
    ids = [1, VOCAB["▁the"], VOCAB["▁a"], VOCAB["b"]]
    assert (
        tokenizer.decode(ids) == other.decode(ids) == ("the ab" if kind in ("strip", "always", "first") else " the ab")
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(259, len(TOKENS) - 1) | st.just(1), max_size=6),
       st.lists(st.integers(259, len(TOKENS) - 1) | st.just(2), max_size=6), st.booleans())  # fmt: skip
def test_an_answer_continues_the_text_of_its_prompt(prompt, answer, spaced):
    tokenizer = gguf_tokenizer(metadata(add_space_prefix=spaced), "x")
    stream = tokenizer.stream(prompt)
    text = "".join([*map(stream.add, answer), stream.end()])
    assert tokenizer.decode(prompt) + text == tokenizer.decode([*prompt, *answer])


def test_an_answer_that_begins_with_a_new_word_begins_with_a_space():
    tokenizer = gguf_tokenizer(metadata(), "x")
    assert tokenizer.stream([1, VOCAB["▁the"]]).add(VOCAB["▁a"]) == " a"
    assert tokenizer.stream([1]).add(VOCAB["▁a"]) == "a"
    assert gguf_tokenizer(metadata(add_space_prefix=False), "x").decode([1, VOCAB["▁a"]]) == " a"


@pytest.mark.parametrize("spaced", [True, False])
def test_what_is_exported_says_whether_a_space_goes_before_a_text(tmp_path, spaced):
    tokenizer = gguf_tokenizer(metadata(add_space_prefix=spaced), "x")
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    for text in (tokenizer, Tokenizer.from_folder(tmp_path)):
        said = gguf_text(Text(text), len(TOKENS))
        assert said["tokenizer.ggml.add_space_prefix"] is spaced


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_metaspace_says_whether_a_space_goes_before_a_text(library, tmp_path, scheme):
    other = Encoder.from_str(library.to_str())
    other.normalizer = normalizers.Sequence([])
    other.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    other.save(str(tmp_path / "tokenizer.json"))
    said = gguf_text(Text(Tokenizer.from_folder(tmp_path)), len(TOKENS))
    assert said["tokenizer.ggml.add_space_prefix"] is (scheme != "never")


@pytest.mark.parametrize("changes", [{"scores": None}, {"scores": np.float32([1])}, {"token_type": np.int32([1])}])
def test_vocabularies_that_do_not_fit(changes):
    with pytest.raises(WeightsError, match=r"tokenizer\.ggml\."):
        gguf_tokenizer(metadata(**changes), "x").encode("a")
