"""Writes CTranslate2 ``model.bin`` files for the tests."""

import struct

import ml_dtypes
import numpy as np

_IDS = {np.dtype(t): i for i, t in enumerate((np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16))}


def _string(text):
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def ct2_bytes(variables, aliases=(), version=6, spec="WhisperSpec", revision=3):
    out = [struct.pack("<I", version), _string(spec), struct.pack("<I", revision), struct.pack("<I", len(variables))]
    for name, array in variables.items():
        array = np.asarray(array)
        out.append(_string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape))
        out.append(struct.pack("<BI", _IDS[array.dtype], array.nbytes) + array.tobytes())
    out.append(struct.pack("<I", len(aliases)))
    out += [_string(alias) + _string(name) for alias, name in aliases]
    return b"".join(out)


def whisper_variables(width=8, heads=2, encoder=2, decoder=1, vocab=21, mels=4, dtype=np.float16, seed=0):
    """The variables of a tiny Whisper, as CTranslate2's converter writes them."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (rng.standard_normal(shape) * 0.3).astype(dtype)

    flags = {"activation": 3, "alibi": 0, "pre_norm": 1, "scale_embeddings": 0, "start_from_zero_embedding": 0}
    variables = {f"decoder/{flag}": np.int8(value) for flag, value in flags.items()}
    variables["decoder/embeddings/weight"] = draw(vocab, width)
    for conv, channels in (("conv1", mels), ("conv2", width)):
        variables[f"encoder/{conv}/weight"] = draw(width, channels, 3)
        variables[f"encoder/{conv}/bias"] = draw(width)
    for side, layers, positions in (("encoder", encoder, 10), ("decoder", decoder, 6)):
        variables[f"{side}/num_heads"] = np.int16(heads)
        variables[f"{side}/position_encodings/encodings"] = draw(positions, width)
        norms = [f"{side}/layer_norm"]
        for layer in range(layers):
            at = f"{side}/layer_{layer}"
            linears = {"self_attention/linear_0": (3 * width, width), "self_attention/linear_1": (width, width)}
            linears |= {"ffn/linear_0": (4 * width, width), "ffn/linear_1": (width, 4 * width)}
            norms += [f"{at}/self_attention/layer_norm", f"{at}/ffn/layer_norm"]
            if side == "decoder":
                linears |= {"attention/linear_0": (width, width), "attention/linear_1": (2 * width, width)}
                linears["attention/linear_2"] = (width, width)
                norms.append(f"{at}/attention/layer_norm")
            for name, shape in linears.items():
                variables[f"{at}/{name}/weight"] = draw(*shape)
                variables[f"{at}/{name}/bias"] = draw(shape[0])
        for norm in norms:
            variables[f"{norm}/gamma"] = draw(width)
            variables[f"{norm}/beta"] = draw(width)
    return variables


WHISPER_ALIASES = [("decoder/projection/weight", "decoder/embeddings/weight")]
