"""What Tallow knows of CLAP beside its modules: its sizes, and which tensors of its files say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallow.models.clap.clap import Clap
from tallow.models.spec import Spec
from tallow.runtime.sizes import Sizes


def clap_sizes(config: Mapping[str, Any]) -> Sizes:
    """CLAP: a Swin Transformer whose stages double in width, a RoBERTa, and two projections of two layers each."""
    audio, text = config.get("audio_config") or {}, config.get("text_config") or {}
    width, patch, window = (
        audio.get("patch_embeds_hidden_size", 96),
        audio.get("patch_size", 4),
        audio.get("window_size", 8),
    )
    depths, heads = audio.get("depths", (2, 2, 6, 2)), audio.get("num_attention_heads", (4, 8, 16, 32))
    patches = (audio.get("spec_size", 256) // patch) ** 2
    d, f = text.get("hidden_size", 768), text.get("intermediate_size", 3072)
    layers, vocab = text.get("num_hidden_layers", 12), text.get("vocab_size", 50265)
    projection = config.get("projection_dim", 512)
    matrices = layers * (4 * d * d + 2 * d * f) + vocab * d + d * d
    rows = layers * (5 * d + f) + vocab + d
    tensors = layers * (9 * d + f) + text.get("max_position_embeddings", 514) * d + 4 * d
    for stage, depth in enumerate(depths):
        wide = width << stage
        matrices += depth * 12 * wide * wide + (8 * wide * wide if stage + 1 < len(depths) else 0)
        rows += depth * 9 * wide + 2 * wide
        # Biases, norms, and a mask for each window of the blocks that are shifted, every other one.
        tensors += depth * 13 * wide + (depth + 1) // 2 * heads[stage] * window**4
        tensors += depth // 2 * heads[stage] * window**2 * (patches >> 2 * stage)
    matrices += projection * ((width << len(depths) - 1) + d + 2 * projection)
    return Sizes(
        matrices=matrices,
        tables=vocab * d,
        scales=rows + 4 * projection,
        tensors=tensors + width * (patch * patch + 3),
        cache_per_row=0,
        cache_per_token=0,
        context=text.get("max_position_embeddings", 514),
        results=24 * patches * width,  # 13 in the first stage, in each one after it half of the one before
        live=6 * patches * width,  # inside the first stage's MLP: its input, what lies between, and the stream
        fixed=700 * vocab + 37_000_000,  # the tokenizer; PyAV and decoding 22, modules 15
    )


SPEC = Spec(
    Clap,
    model_types=("clap",),
    sizes=clap_sizes,
    unread={
        r".*\.(position_ids|token_type_ids|relative_position_index)": "buffers of numbers that are always the same",
        r".*\.num_batches_tracked": "counts the batches of training",
        r"logit_scale_t": "the factor of a loss of text's own; probabilities of sounds take logit_scale_a",
    },
)
