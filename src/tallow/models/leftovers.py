"""Tensors of a checkpoint that no module has read: the few that mean nothing, and what to say of all others.

A model that leaves a weight unread computes something else than was trained, and nothing in its answers says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tallow.errors import WeightsError
from tallow.models.registry import find_spec
from tallow.weights.checkpoint import Checkpoint

# What tensors belong to that Tallow computes in no language model, and what to do.
_PARTS = (
    (r"lora_|lora\.", "the parts of a LoRA; merge them into the model (PEFT's merge_and_unload) and save that"),
    (r"(^|\.)(visual|vision_tower|vision_model|multi_modal_projector|mm_projector|v|mm)\.",
     "a model of pictures; load the language model alone"),
    (r"(^|\.)(mtp|nextn)(\.|_)", "layers that predict several tokens; save the model without them"),
    (r"\.(experts|router)\.|_exps\.", "a mixture of experts, which Tallow does not compute"),
    (r"(^|\.)(score|classifier|projector)\.", "the head of a classifier; save the model without it"),
)  # fmt: skip


def check_unused(checkpoint: Checkpoint, unused: Sequence[str]) -> None:
    """Refuse a checkpoint that holds weights which no module has read.

    Args:
        checkpoint: what was loaded.
        unused: the names that its modules didn't ask for (``VarBuilder.unused``).

    Raises:
        WeightsError: names the first of them, and says what it belongs to where that is known.
    """
    known = find_spec(checkpoint.architecture).unread
    unread = [name for name in unused if not any(re.fullmatch(pattern, name) for pattern in known)]
    if not unread:
        return
    where, name, more = checkpoint.source.where, unread[0], len(unread) - 1
    left = set(unused)
    used = {_pattern(found) for found in checkpoint.source.names() if found not in left}
    surplus = [name for name in unread if _pattern(name) in used and re.search(r"\.\d+\.", name)]
    if surplus:
        raise WeightsError(
            f"{where}: holds {len(surplus)} tensors that the config has no layer for, such as {surplus[0]!r}; config "
            "and weights don't belong together"
        )
    part = next((said for pattern, said in _PARTS if re.search(pattern, name)), None)
    reason = f"belongs to {part}" if part else f"is nothing that Tallow's {checkpoint.architecture} computes"
    also = f" (and {more} more)" if more else ""
    raise WeightsError(f"{where}: the tensor {name!r}{also} {reason}; without it the results would be wrong")


def _pattern(name: str) -> str:
    """A tensor's name with the numbers of layers taken out."""
    return re.sub(r"\.\d+\.", ".#.", name)
