"""A checkpoint: a folder (or file) of weights, opened, with its config and its names in the modules' terms."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tallow.errors import ModelNotFoundError, WeightsError
from tallow.weights.adapters import decoder, whisper
from tallow.weights.adapters.fp8 import quantised_source
from tallow.weights.ctranslate2 import CTranslate2File
from tallow.weights.gguf_files import choose_gguf, is_gguf
from tallow.weights.safetensors import open_safetensors
from tallow.weights.source import Source, read_json, short

PICKLES = ("pytorch_model.bin", "pytorch_model-")  # how the names of weights begin that Tallow will not read
_HUGGINGFACE: dict[str, Callable[[Source], Source]] = {
    "whisper": whisper.from_huggingface,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), decoder.from_huggingface),
    # Their modules ask for the names that the files have.
    **dict.fromkeys(("clap", "dinov3_vit", "dinov3_convnext"), lambda source: source),
}


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


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a folder, or a weight file in one, whose ``config.json`` lies beside the weights; or a GGUF file.

    Raises:
        ModelNotFoundError: if there is no such folder, or it holds no weights that Tallow reads.
        WeightsError: if a file is damaged or of an architecture without a counterpart here.
    """
    path = os.fspath(path)
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    weights = _weight_file(path)
    if is_gguf(weights):
        return _open_gguf(folder, weights)
    config_path = os.path.join(folder, "config.json")
    if not os.path.isfile(config_path):
        raise ModelNotFoundError(f"{path}: beside the weights there must be a config.json, which says what of")
    config = read_json(config_path)
    if weights.endswith(".bin"):
        return _open_ctranslate2(folder, weights, config)
    architecture = config.get("model_type")
    adapt = _HUGGINGFACE.get(architecture) if isinstance(architecture, str) else None
    if adapt is None:
        raise WeightsError(
            f"{config_path}: holds a model of type {short(architecture)}; Tallow has {', '.join(sorted(_HUGGINGFACE))}"
        )
    generation_path = os.path.join(folder, "generation_config.json")
    generation = read_json(generation_path) if os.path.isfile(generation_path) else {}
    source = quantised_source(open_safetensors(weights), config.get("quantization_config"), config_path)
    return Checkpoint(folder, str(architecture), config, generation, adapt(source))


def _open_ctranslate2(folder: str, weights: str, settings: dict[str, Any]) -> Checkpoint:
    source = CTranslate2File(weights)
    config, generation = whisper.ctranslate2_config(source, settings)
    return Checkpoint(folder, "whisper", config, generation, whisper.from_ctranslate2(source))


def _open_gguf(folder: str, weights: str) -> Checkpoint:
    from tallow.weights.adapters import gguf as adapter
    from tallow.weights.gguf import open_gguf

    file = open_gguf(weights)
    config = adapter.gguf_config(file)
    return Checkpoint(folder, config["model_type"], config, {}, adapter.from_gguf(file, config), file.metadata)


def _weight_file(path: str) -> str:
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
            return _weight_file(os.path.join(path, choose_gguf(names, None)[0]))
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
