"""How byte-level vocabularies cut text into words before they join bytes to tokens, by the name that GGUF has for it.

Source: github.com/ggml-org/llama.cpp, ``src/llama-vocab.cpp`` (names, order of the patterns, ``ignore_merges`` and
``add_bos``), and the ``tokenizer.json`` of the models that gave the names, where the patterns come from. Of the names
there, ``kimi-k2`` and ``afmoe`` (which have code of their own), ``youtu``, ``spark2_5`` and those of vocabularies that
are not byte-level (``gemma4``, ``sarvam-moe``, ``whitespace``) are left out.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Split:
    """How a text is cut into words, and what comes with it.

    Args:
        patterns: each is applied to every piece that those before it left: its matches become pieces, and what lies
            between them.
        ignore_merges: whether a word that is a token is taken whole, without merges.
        add_bos: whether a token begins a text if the file does not say.
        composed: whether text is put in Unicode's form NFC first.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    composed: bool = False


def normalizer(split: Split) -> Any:
    """What a text goes through before it is cut into words, of the ``tokenizers`` library; None for nothing."""
    from tokenizers import normalizers

    return normalizers.NFC() if split.composed else None


def pre_tokenizer(split: Split) -> Any:
    """What cuts a text into words of the byte-level alphabet, of the ``tokenizers`` library."""
    from tokenizers import Regex, pre_tokenizers

    steps: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
DIGITS = r"\p{N}+"
_THREE = "[0-9][0-9][0-9]"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANK = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|"
_LLAMA3 = _LETTERS + r"\p{N}{1,3}|" + _MARKS + _BLANK
_QWEN2 = _LETTERS + r"\p{N}|" + _MARKS + _BLANK
_QWEN35 = _SHORT + (r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_HALVING = "|".join(rf"\s{{{size}}}(?!\S)" for size in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
_CASED = (  # a word's small letters end it: %s stands for what may follow, and the digits
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s|"
    r"%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _BLANK
)
_GPT4O = _CASED % (_SHORT + "?", _SHORT + "?", r"\p{N}{1,3}")
_JAPANESE = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    _JAPANESE,
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
    r" ?[\p{P}\p{S}]+[\r\n]*|" + _BLANK,
)
_NO_STOPS = " ?[^(\\s|.,!?…。，、।۔،)]+"
_CHINESE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"

_CASED_LETTERS = (  # of Latin, Greek, Cyrillic and other alphabets with large and small letters
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-"
    "\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK = (
    "[\r\n]",
    rf"\s?[{_CASED_LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _CHINESE,
    DIGITS,
)
_CHAMELEON = (
    "<sentinel:[0-9]+>",
    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    "([\\t\\n]|    |  )",
    DIGIT,
    r"[\p{P}!-/:-@\[-`{-~]",
    GPT2,
)

_ALIKE: dict[
    str, Split
] = {  # names, with spaces between, of the same split; the first of equals is what convert writes
    "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code "
    "roberta-bpe mpt olmo jais trillion granite-docling exaone4": Split((GPT2,)),
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": Split((DIGIT, GPT2)),
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": Split(
        (_LLAMA3,), ignore_merges=True, add_bos=True
    ),
    "dbrx smaug-bpe glm4 chatglm-bpe": Split((_LLAMA3,)),
    "qwen2": Split((_QWEN2,), composed=True),
    "deepseek-r1-qwen stablelm2 kormo f2llmv2 megrez hunyuan grok-2 solar-open": Split((_QWEN2,)),
    "qwen35": Split((_QWEN35,)),
    "tekken": Split((_CASED % ("", "", r"\p{N}"),), ignore_merges=True, add_bos=True),
    "gpt-4o llama4 kanana2 talkie minimax-m2": Split((_GPT4O,)),
    "granite-embed-multi-97m": Split((_GPT4O,), ignore_merges=True),
    "tiny_aya cohere2moe": Split((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O)),
    "minicpm5": Split((r"\p{N}{1,3}", _LETTERS + r"\p{N}+|" + _MARKS + _BLANK), ignore_merges=True),
    "deepseek-v3 hunyuan-dense hy_v4 joyai-llm": Split(_DEEPSEEK3),
    "deepseek-llm": Split(_DEEPSEEK),
    "chameleon": Split(_CHAMELEON, add_bos=True),
    "deepseek-coder": Split(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE, DIGIT)),
    "falcon": Split((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, _THREE)),
    "default": Split((r"[\p{P}\$\+<=>\^~\|]+", GPT2, DIGITS, _THREE)),
    "jais-2": Split((_LETTERS + r"\p{N}{1,3}|" + _MARKS + r"\s*[\r\n]+|" + _HALVING + r"|\s{1}",)),
    "bloom poro-chat gpt3-finnish": Split((_NO_STOPS,)),
    "viking": Split((_NO_STOPS, DIGIT)),
    "superbpe": Split((DIGITS, r"(?=(\d{3})+(?!\d))")),
    "bailingmoe bailingmoe2 llada-moe": Split(
        (
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
            r"\s+(?!\S)|\s+",
        )
    ),
    "seed-coder": Split((_LETTERS + r"\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|" + _BLANK,)),
    "ufakzeka": Split((r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _MARKS + _BLANK,)),
    "laguna": Split((r"[^\n]+|[\n]+", _QWEN2)),
    "exaone-moe": Split(
        (
            _SHORT + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|"
            r"\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
}
SPLITS: dict[str, Split] = {name: split for names, split in _ALIKE.items() for name in names.split()}
