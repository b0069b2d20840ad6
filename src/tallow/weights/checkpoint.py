"""A checkpoint: a folder (or file) of weights, and which of its files they are."""

from __future__ import annotations

import os
from typing import Any

from tallow.errors import ModelNotFoundError, WeightsError
from tallow.weights.gguf_files import choose_gguf, is_gguf
from tallow.weights.source import Source, read_json, short

PICKLES = ("pytorch_model.bin", "pytorch_model-")  # how the names of weights begin that Tallow will not read


class Checkpoint:
    """An opened checkpoint.

    Attributes:
        folder: where its files lie.
        architecture: Hugging Face's ``model_type``, such as ``"whisper"``.
        config: what ``config.json`` says, in Hugging Face's terms whatever the format.
        generation_config: what ``generation_config.json`` says, likewise; empty if there is none.
        source: the weights, under the names that the architecture's modules ask for.
        metadata: of a GGUF file, which holds tokenizer and chat template too; None for other formats.
    """

    def __init__(
        self,
        folder: str,
        architecture: str,
        config: dict[str, Any],
        generation_config: dict[str, Any],
        source: Source,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.architecture = architecture
        self.config = config
        self.generation_config = generation_config
        self.source = source
        self.metadata = metadata

    def file(self, *names: str) -> str:
        """The path of the first of these files that the folder has, such as ``file("tokenizer.json")``.

        Raises:
            ModelNotFoundError: if it has none of them.
        """
        for name in names:
            path = os.path.join(self.folder, name)
            if os.path.isfile(path):
                return path
        raise ModelNotFoundError(f"{self.folder}: the checkpoint lacks {' and '.join(names)}")

    def processor(self, part: str) -> tuple[dict[str, Any], str]:
        """The settings of a part of the processor, and the name of the file that they stand in.

        Transformers 5 writes a processor's settings into one ``processor_config.json``, each part's under its name;
        what it saves alone, and what versions before it saved, is the whole of a ``preprocessor_config.json``.

        Args:
            part: ``"feature_extractor"`` or ``"image_processor"``.

        Raises:
            ModelNotFoundError: if neither file has it.
            WeightsError: for a damaged file.
        """
        path = os.path.join(self.folder, "processor_config.json")
        settings = read_json(path).get(part) if os.path.isfile(path) else None
        if settings is not None:
            if not isinstance(settings, dict):
                raise WeightsError(f"{path}: {part} must be an object, found {short(settings)}")
            return settings, f"{part} in processor_config.json"
        path = os.path.join(self.folder, "preprocessor_config.json")
        if not os.path.isfile(path):
            raise ModelNotFoundError(
                f"{self.folder}: the checkpoint lacks preprocessor_config.json, or a processor_config.json with {part}"
            )
        return read_json(path), "preprocessor_config.json"


def weight_file(path: str) -> str:
    """The file of weights that a path means, or the folder itself if it holds safetensors."""
    if not os.path.exists(path):
        raise ModelNotFoundError(f"{path}: no such file or folder")
    if not os.path.isdir(path):
        if is_gguf(path) or path.endswith((".safetensors", ".safetensors.index.json")):
            return path
        if path.lower().endswith(".gguf"):
            raise WeightsError(f"{path}: not a GGUF file, whatever its name says: it does not begin with 'GGUF'")
        if os.path.basename(path) == "model.bin":
            return path
        raise WeightsError(
            f"{path}: expected *.safetensors, *.safetensors.index.json, *.gguf or CTranslate2's model.bin"
        )
    names = os.listdir(path)
    if any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
        return path
    if "model.bin" in names:
        return os.path.join(path, "model.bin")
    if any(name.lower().endswith(".gguf") for name in names):
        try:
            return weight_file(os.path.join(path, choose_gguf(names, None)[0]))
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"{path}: {error}") from None
    if any(name.startswith(PICKLES) for name in names):
        raise WeightsError(pickled(path))
    raise ModelNotFoundError(f"{path}: holds no weights (*.safetensors, *.gguf or CTranslate2's model.bin)")


def pickled(where: str) -> str:
    """What to say of a checkpoint whose weights are a pickle, which runs code when it is read."""
    code = (
        "import torch, safetensors.torch as s; w = torch.load('pytorch_model.bin', weights_only=True); "
        "s.save_file({k: v.clone().contiguous() for k, v in w.items()}, 'model.safetensors', {'format': 'pt'})"
    )
    return (
        f"{where}: has its weights only as pytorch_model.bin, a pickle that could run any code; Tallow reads "
        f'safetensors. Convert it in its folder, where PyTorch is installed: python -c "{code}"'
    )
