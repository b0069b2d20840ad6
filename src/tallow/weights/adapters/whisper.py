"""Whisper's weights: from Hugging Face's and CTranslate2's files to the names that ``models/whisper.py`` asks for.

The modules' names are Hugging Face's own, ``model.encoder.layers.0.self_attn.q_proj.weight`` and so on. The output
projection ``proj_out.weight`` is the token embedding, and is never asked for by a model that ties them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tallow.errors import WeightsError
from tallow.weights.adapters.mapped import MappedSource, Piece
from tallow.weights.ctranslate2 import CTranslate2File
from tallow.weights.source import Source

_EMBEDDING = "model.decoder.embed_tokens.weight"


def from_huggingface(source: Source) -> Source:
    """Hugging Face's names, whichever class saved them.

    ``WhisperForConditionalGeneration`` writes ``model.encoder.…``, ``WhisperModel`` the same without ``model.``; of the
    tied pair ``proj_out.weight`` and ``model.decoder.embed_tokens.weight`` some files hold only one.
    """
    pieces: dict[str, Piece] = {}
    for name in source.names():
        bare = name.startswith(("encoder.", "decoder."))
        pieces["model." + name if bare else name] = Piece(name)
    if _EMBEDDING not in pieces and "proj_out.weight" in pieces:
        pieces[_EMBEDDING] = pieces["proj_out.weight"]
    if "proj_out.weight" not in pieces and _EMBEDDING in pieces:
        pieces["proj_out.weight"] = pieces[_EMBEDDING]
    return MappedSource(source, pieces)


def from_ctranslate2(source: CTranslate2File) -> Source:
    """CTranslate2's variables: q, k and v come out of one fused matrix, cross-attention's k and v out of another.

    The fused bias has a stretch for k, which Whisper has not; it is left out, which is exact whatever it holds: a bias
    on k adds the same number to all of a query's scores, and softmax does not see it.
    """
    pieces = dict(_ctranslate2_pieces(source))
    taken = {piece.name for piece in pieces.values()}
    for name in source.names():
        info = source.info(name)
        if name not in taken and info is not None and info.shape:  # those without axes are settings
            pieces[name] = Piece(name)  # under its own name, so that it is missed where no module reads it
    return MappedSource(source, pieces)


def _ctranslate2_pieces(source: CTranslate2File) -> Iterator[tuple[str, Piece]]:
    yield _EMBEDDING, Piece("decoder/embeddings/weight")
    yield "proj_out.weight", Piece("decoder/projection/weight")
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            yield f"model.encoder.{conv}.{part}", Piece(f"encoder/{conv}/{part}")
    for side in ("encoder", "decoder"):
        yield f"model.{side}.embed_positions.weight", Piece(f"{side}/position_encodings/encodings")
        yield from _norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for layer in range(_count_layers(source, side)):
            ours, theirs = f"model.{side}.layers.{layer}", f"{side}/layer_{layer}"
            yield from _attention(f"{ours}.self_attn", f"{theirs}/self_attention", ("q", "k", "v"), ())
            yield from _norm(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm")
            if side == "decoder":
                yield from _attention(f"{ours}.encoder_attn", f"{theirs}/attention", ("q",), ("k", "v"))
                yield from _norm(f"{ours}.encoder_attn_layer_norm", f"{theirs}/attention/layer_norm")
            for number in (0, 1):
                for part in ("weight", "bias"):
                    yield f"{ours}.fc{number + 1}.{part}", Piece(f"{theirs}/ffn/linear_{number}/{part}")
            yield from _norm(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm")


def _norm(ours: str, theirs: str) -> Iterator[tuple[str, Piece]]:
    yield f"{ours}.weight", Piece(f"{theirs}/gamma")
    yield f"{ours}.bias", Piece(f"{theirs}/beta")


def _attention(
    ours: str, theirs: str, first: tuple[str, ...], second: tuple[str, ...]
) -> Iterator[tuple[str, Piece]]:  # fmt: skip
    """The projections fused in ``linear_0``, those fused in ``linear_1``, and the output in the linear after them."""
    groups = [group for group in (first, second, ("out",)) if group]
    for number, group in enumerate(groups):
        for part, letter in enumerate(group):
            name = f"{ours}.{letter}_proj"
            yield f"{name}.weight", Piece(f"{theirs}/linear_{number}/weight", part, len(group))
            if letter != "k":
                yield f"{name}.bias", Piece(f"{theirs}/linear_{number}/bias", part, len(group))


def _count_layers(source: CTranslate2File, side: str) -> int:
    count = 0
    while source.info(f"{side}/layer_{count}/ffn/linear_0/weight") is not None:
        count += 1
    return count


def ctranslate2_config(source: CTranslate2File, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What Hugging Face would write to ``config.json`` and ``generation_config.json`` for a CTranslate2 checkpoint.

    Args:
        source: the variables, whose shapes hold the sizes.
        settings: the checkpoint's own ``config.json``, which holds only the lists of tokens and the alignment heads.

    Raises:
        WeightsError: if it lacks a variable, or computes something else than Whisper does.
    """
    _expect_flags(source)
    width, mels = _sizes(source, "encoder/conv1/weight", 3)[:2]
    vocabulary = _sizes(source, "decoder/embeddings/weight", 2)[0]
    config = {
        "model_type": "whisper",
        "d_model": width,
        "num_mel_bins": mels,
        "vocab_size": vocabulary,
        "max_source_positions": _sizes(source, "encoder/position_encodings/encodings", 2)[0],
        "max_target_positions": _sizes(source, "decoder/position_encodings/encodings", 2)[0],
    }
    for side in ("encoder", "decoder"):
        config[f"{side}_layers"] = _count_layers(source, side)
        config[f"{side}_attention_heads"] = _number(source, f"{side}/num_heads")
        config[f"{side}_ffn_dim"] = _sizes(source, f"{side}/layer_0/ffn/linear_0/weight", 2)[0]
    generation = {
        "is_multilingual": vocabulary >= 51865,  # the multilingual vocabulary has one token more, or several
        "suppress_tokens": settings.get("suppress_ids"),
        "begin_suppress_tokens": settings.get("suppress_ids_begin"),
        "alignment_heads": settings.get("alignment_heads"),
    }
    return config, generation


def _expect_flags(source: CTranslate2File) -> None:
    """Refuse the variants that CTranslate2 can express and Whisper is not: another activation, scaled embeddings, …."""
    expected = {"activation": 3, "pre_norm": 1, "scale_embeddings": 0, "start_from_zero_embedding": 0, "alibi": 0}
    for flag, value in expected.items():
        name = f"decoder/{flag}"
        if source.info(name) is not None and _number(source, name) != value:
            raise WeightsError(f"{source.where}: {name!r} is {_number(source, name)}; in a Whisper it is {value}")


def _sizes(source: CTranslate2File, name: str, axes: int) -> tuple[int, ...]:
    info = source.info(name)
    if info is None or len(info.shape) != axes:
        found = "is not there" if info is None else f"has shape {info.shape}"
        raise WeightsError(f"{source.where}: expected the variable {name!r} with {axes} axes; it {found}")
    return info.shape


def _number(source: CTranslate2File, name: str) -> int:
    """A variable that is one integer."""
    info = source.info(name)
    if info is None or info.shape != () or info.dtype.kind != "i":
        raise WeightsError(f"{source.where}: expected the variable {name!r}, one integer")
    return int(source.raw(name))
