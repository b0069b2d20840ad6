"""What ends an answer, by the texts that llama.cpp knows and the ids that a file names."""

from types import SimpleNamespace

import numpy as np
import pytest

from tallow.text.end_tokens import end_token_ids
from tallow.text.language import Text

from .vocabularies import as_gguf, byte_level, strings


def from_gguf(tokens, types=None, **changes):
    types = np.int32([1, *(types or [3] * len(tokens))])
    said = {"tokens": strings(["a", *tokens]), "merges": strings([]), "eos_token_id": None, "token_type": types}
    metadata = as_gguf(byte_level(), **said | changes)
    return Text.from_checkpoint(
        SimpleNamespace(metadata=metadata, source=SimpleNamespace(where="m.gguf"))
    ).eos_token_ids


@pytest.mark.parametrize(
    "token",
    ["<|end|>", "<end_of_turn>", "<EOT>", "[EOT]", "[EOS]", "<|return|>", "<turn|>", "<|eot_id|>", "<|im_end|>", "</s>",
     "<|endoftext|>", "<|eom_id|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<|call|>", "<eos>", "[e~["],
)  # fmt: skip
@pytest.mark.parametrize("type", [3, 1, 4])
def test_a_token_known_by_its_text_ends_an_answer_whatever_its_type(token, type):
    assert from_gguf(["b", token], [1, type]) == {2}


def test_ids_that_a_file_names():
    assert from_gguf(["x", "y", "z"], eot_token_id=1, eom_token_id=2) == {1, 2}
    assert from_gguf(["x", "y", "z"], eos_token_id=3) == {3}
    assert from_gguf(["x"], eos_token_id=9) == frozenset()


def test_the_end_of_a_message_is_not_that_of_an_answer_in_harmony():
    assert from_gguf(["<|end|>", "<|return|>", "<|call|>"]) == {2, 3}
    assert from_gguf(["<|end|>", "<|flush|>", "<|calls|>"]) == {2, 3}
    assert from_gguf(["<|end|>", "<|return|>"]) == {1, 2}
    assert from_gguf(["<|end|>", "<|return|>", "<|call|>"], eos_token_id=1) == {2, 3}


def test_a_closing_tag_is_markup_where_tools_answer():
    assert from_gguf(["</s>", "<turn|>", "<|tool_response>"]) == {2, 3}


def test_tokens_between_pieces_of_code():
    assert from_gguf(["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|fim_prefix|>"]) == {1, 2, 3}
    assert end_token_ids({"<|file_sep|>": 5}, {"fim_sep": 7}) == {7}
    assert end_token_ids({}, {}) == frozenset()
