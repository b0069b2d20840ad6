"""Tokens by which models say that they have finished, known by their text: files often name only one of them.

Source: github.com/ggml-org/llama.cpp, ``src/llama-vocab.cpp`` (``special_eog_ids``).
"""

from __future__ import annotations

from collections.abc import Mapping

_ENDS = """<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s>
<|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response>
<｜end▁of▁sentence｜> [e~["""
# Between files of code, or filling in a middle: what would come next belongs to something else. A file's metadata may
# name such tokens, and then their texts do not count.
_FILL = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}

END_TOKENS = (*_ENDS.split(), *(text for texts in _FILL.values() for text in texts))


def end_token_ids(found: Mapping[str, int], named: Mapping[str, int]) -> frozenset[int]:
    """The ids that end an answer.

    Args:
        found: text -> id of those of ``END_TOKENS`` that the vocabulary has.
        named: ids that the file names, by ``"eos"``, ``"eot"``, ``"eom"``, ``"fim_pad"``, ….
    """
    ends = {found[text] for text in _ENDS.split() if text in found}
    ends |= {named[name] for name in ("eos", "eot", "eom") if name in named}
    for name, texts in _FILL.items():
        known = [named[name]] if name in named else [found[text] for text in texts if text in found]
        ends |= set(known[:1])
    harmony = {"<|return|>", "<|call|>"} <= found.keys()
    solar = "<|flush|>" in found and not {"<|call|>", "<|calls|>"}.isdisjoint(found)
    if harmony or solar:  # there it ends a message, after which the answer goes on
        ends.discard(found.get("<|end|>", -1))
    if "<|tool_response>" in found:
        ends.discard(found.get("</s>", -1))
    return frozenset(ends)
