import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.errors import WeightsError
from tallow.text.gguf_tokenizer import gguf_tokenizer
from tallow.text.splits import SPLITS, pre_tokenizer
from tallow.text.tokenizer import Tokenizer

from .vocabularies import PLAIN, SPECIAL, TEXT, as_gguf, byte_level, strings

DIFFERENT = {split: name for name, split in reversed(SPLITS.items())}.values()  # a name for each split


@pytest.fixture(scope="module")
def library():
    return byte_level()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_texts_become_what_they_are_in_the_tokenizers_own_file(library, text):
    tokenizer = gguf_tokenizer(as_gguf(library), "x")
    assert tokenizer.encode(text, special=True) == library.encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pre", DIFFERENT)
def test_every_split_keeps_the_text(library, pre):
    tokenizer = gguf_tokenizer(as_gguf(library, pre), "x")
    for text in [*TEXT, "  two  spaces \n\n\t x2025y", "ÄÖÜ'll'S", ""]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pre", DIFFERENT)
@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(st.sampled_from([*TEXT, *SPECIAL, *PLAIN]) | st.text(max_size=12)).map("".join), special=st.booleans()
)
def test_ids_are_those_of_the_library(library, pre, text, special):
    tokenizer = gguf_tokenizer(as_gguf(library, pre), "x")
    oracle = Tokenizer({}, tokenizer.added, tokenizer.special, tokenizer._make_encoder)
    assert tokenizer.encode(text, special=special) == oracle.encode(text, special=special)


def test_a_long_word(library):
    tokenizer = gguf_tokenizer(as_gguf(library), "x")
    text = "catthe" * 20_000
    assert tokenizer.encode(text) == tokenizer._make_encoder().encode(text).ids


def test_characters_that_are_no_tokens_are_left_out():
    metadata = {"model": "gpt2", "tokens": strings(["a", "b", "ab"]), "merges": strings(["a b"])}
    tokenizer = gguf_tokenizer({f"tokenizer.ggml.{key}": value for key, value in metadata.items()}, "x")
    assert tokenizer.encode("axb ab") == tokenizer._make_encoder().encode("axb ab").ids == [2, 2]
    assert [tokenizer.id(token) for token in ("ab", "b", "c", "")] == [2, 1, None, None]
    assert len(tokenizer) == 3


def test_splits_differ_in_their_digits(library):
    def digits(pre):
        return len(gguf_tokenizer(as_gguf(library, pre), "x").encode(" 12345"))

    assert digits("gpt-2") == 1  # the vocabulary has this number
    assert digits("smollm") == digits("qwen2") == 6
    assert 1 < digits("llama-bpe") <= 6


def test_special_and_plain_added_tokens(library):
    tokenizer = gguf_tokenizer(as_gguf(library), "x")
    text = "<|im_start|>a<think>b"
    assert tokenizer.encode(text, special=True) == library.encode(text).ids
    ids = tokenizer.encode(text, special=True)
    assert tokenizer.decode(ids) == "a<think>b"
    assert tokenizer.decode(ids, skip_special=False) == text
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_what_is_put_around_a_text(library):
    end = library.token_to_id("<|im_end|>")
    plain = gguf_tokenizer(as_gguf(library), "x").encode("cat")
    assert gguf_tokenizer(as_gguf(library), "x").encode("cat", around=True) == plain
    assert gguf_tokenizer(as_gguf(library, add_eos_token=True), "x").encode("cat", around=True) == [*plain, end]
    begins = as_gguf(library, add_bos_token=True, bos_token_id=end)
    assert gguf_tokenizer(begins, "x").encode("cat", around=True) == [end, *plain]


@pytest.mark.parametrize(
    ("pre", "begins"),
    [("llama-bpe", True), ("llama-v3", True), ("tekken", True), ("pixtral", True), ("chameleon", True),
     ("gpt-2", False), ("qwen2", False), ("dbrx", False), (None, False)],
)  # fmt: skip
def test_whether_a_token_begins_a_text_follows_from_the_split(library, pre, begins):
    begin = library.token_to_id("<|im_start|>")
    said = gguf_tokenizer(as_gguf(library, pre, bos_token_id=begin), "x")
    assert said.encode("cat", around=True) == [begin] * begins + said.encode("cat")
    assert said.before == ([begin] if begins else [])
    oracle = Tokenizer({}, said.added, said.special, said._make_encoder)
    assert oracle.before == said.before
    silent = gguf_tokenizer(as_gguf(library, pre, bos_token_id=begin, add_bos_token=False), "x")
    assert silent.before == []


def test_the_default_id_of_a_beginning_counts_only_for_a_control_token(library):
    metadata = as_gguf(library, "llama-bpe")
    assert gguf_tokenizer(metadata, "x").before == []  # 11 is a letter here
    metadata["tokenizer.ggml.token_type"][11] = 3
    assert gguf_tokenizer(metadata, "x").before == [11]


def test_a_file_that_does_not_say_how_text_is_split(library, caplog):
    assert gguf_tokenizer(as_gguf(library, "gpt-2"), "m.gguf") is not None
    assert not caplog.records
    tokenizer = gguf_tokenizer(as_gguf(library, None), "m.gguf")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "m.gguf" in caplog.text
    assert "tokenizer.ggml.pre" in caplog.text
    assert tokenizer.encode("x12345,?") == gguf_tokenizer(as_gguf(library, "default"), "x").encode("x12345,?")
    tokenizer.encode("again")
    assert len(caplog.records) == 1


# Worked out by hand from the patterns that llama.cpp applies one after another.
@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["it", "'s", "Ġ12345", "Ġ$", "x", ",", "Ġ", "ĠHElo"]),
        ("default", ["it", "'", "s", "Ġ", "123", "45", "Ġ", "$", "x", ",", "Ġ", "ĠHElo"]),
        ("falcon", ["it", "'", "s", "Ġ", "123", "45", "Ġ", "$", "x", ",", "Ġ", "ĠHElo"]),
        ("smollm", ["it", "'s", "Ġ", "1", "2", "3", "4", "5", "Ġ$", "x", ",", "Ġ", "ĠHElo"]),
        ("llama-bpe", ["it", "'s", "Ġ", "123", "45", "Ġ$", "x", ",", "Ġ", "ĠHElo"]),
        ("qwen35", ["it", "'s", "Ġ", "1", "2", "3", "4", "5", "Ġ$", "x", ",", "Ġ", "ĠHElo"]),
        ("gpt-4o", ["it's", "Ġ", "123", "45", "Ġ$", "x", ",", "Ġ", "ĠHElo"]),
        ("deepseek-v3", ["it", "'s", "Ġ", "123", "45", "Ġ$", "x", ",", "Ġ", "ĠHElo"]),
        ("deepseek-coder", ["it", "'", "s", "Ġ", "1", "2", "3", "4", "5", "Ġ$", "x", ",", "Ġ", "ĠHElo"]),
        ("deepseek-llm", ["it", "'", "s", "Ġ", "12345", "Ġ$", "x", ",", "Ġ", "ĠHElo"]),
        ("chameleon", ["it", "'", "s", "Ġ", "1", "2", "3", "4", "5", "Ġ", "$", "x", ",", "ĠĠ", "HElo"]),
        ("bloom", ["it's", "Ġ12345", "Ġ$x", ",Ġ", "ĠHElo"]),
        ("superbpe", ["it'sĠ", "12", "345", "Ġ$x,ĠĠHElo"]),
        ("tiny_aya", ["it's", "Ġ", "12", "345", "Ġ$", "x", ",", "Ġ", "ĠHElo"]),
    ],
)
def test_the_words_of_a_split(pre, words):
    assert [word for word, _ in pre_tokenizer(SPLITS[pre]).pre_tokenize_str("it's 12345 $x,  HElo")] == words


def test_special_tokens_as_mere_text_do_not_cut_words(library):
    tokenizer = gguf_tokenizer(as_gguf(library, "gpt-2"), "x")
    mere = [tokenizer.id(token) for token in ("<", "|", "i", "m", "_")]
    assert tokenizer.encode("<|im_start|>")[:5] == mere
    assert len(tokenizer.encode("<think>the cat")) == len(tokenizer.encode("<thinx>the cat"))


def test_a_file_without_a_tokenizer(library):
    assert gguf_tokenizer({}, "x") is None
    assert gguf_tokenizer({"tokenizer.ggml.model": "no_vocab"}, "x") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "bert"}, "'bert'"),
        ({"model": 3}, "kind 3"),
        ({"pre": "klingon"}, "'klingon'"),
        ({"pre": 3}, "as 3 says"),
        ({"tokens": None}, "lacks tokenizer.ggml.tokens"),
        ({"tokens": "abc"}, "lacks tokenizer.ggml.tokens"),
        ({"merges": None}, "lacks tokenizer.ggml.merges"),
        ({"merges": strings(["a b c"])}, "do not fit"),
        ({"merges": strings(["nothing"])}, "do not fit"),
        ({"merges": strings(["東 京"])}, "do not fit"),
        ({"token_type": [1]}, "token_type"),
    ],
)
def test_tokenizers_that_cannot_be(library, changes, said):
    with pytest.raises(WeightsError, match=said):
        gguf_tokenizer(as_gguf(library, **changes), "x").encode("a")
