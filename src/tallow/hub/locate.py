"""A model's name -> files on this disk.

Looked in, in this order: a folder or file of that name, the installed distributions, the Hugging Face cache, the
Hugging Face hub. The cache's layout is read here directly, since ``import huggingface_hub`` takes longer than loading a
small model (layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from tallow.errors import ArgumentError, DownloadError, ModelNotFoundError, WeightsError
from tallow.weights.checkpoint import PICKLES, pickled
from tallow.weights.gguf_files import choose_gguf, files_under, gguf_models, has_tag, split_tag
from tallow.weights.source import read_json

Path = str | os.PathLike[str]
logger = logging.getLogger("tallow")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = {"1", "on", "yes", "true"}


def resolve(
    name_or_path: Path, cache_dir: Path | None = None, revision: str | None = None, token: str | None = None
) -> str:
    """The folder (or file) of a model.

    Args:
        name_or_path: a folder, a file of weights, an installed distribution, or a model's name on the hub. After a
            folder or a name on the hub a colon and a quantisation choose among GGUF files: ``"org/name-GGUF:Q4_K_M"``.
        cache_dir: the Hugging Face cache to use instead of the user's.
        revision: branch, tag or commit on the hub; installed distributions, which have none, are then passed over.
        token: for private and gated models; None means ``HF_TOKEN`` or the one that ``hf auth login`` has stored.

    Raises:
        ModelNotFoundError: if it is in none of these places; the message lists them.
        WeightsError: if it has its weights only in a form that Tallow doesn't read.
        DownloadError: if it can't be downloaded.
    """
    name = as_name(name_or_path)
    local = os.path.expanduser(name)
    if os.path.exists(local):
        return local
    looked = [f"the path {os.path.abspath(local)}"]
    base, tag = split_tag(name)
    if tag is not None and os.path.isdir(folder := os.path.expanduser(base)):
        return _chosen(folder, tag)
    if not _REPOSITORY.fullmatch(base) or ".." in base or "--" in base or (tag is not None and "/" not in base):
        raise ModelNotFoundError(_not_found(name, looked))
    if revision is None and tag is None:
        from tallow.hub.installed import find_installed

        installed = find_installed(name)
        if installed is not None:
            return installed.folder
        looked.append("the installed packages")
    cached = cached_snapshot(base, cache_dir, revision, tag)
    if cached is not None:
        return cached
    looked.append(f"the cache {repository_folder(base, cache_dir)}")
    if is_offline():
        raise ModelNotFoundError(_not_found(name, looked) + ". HF_HUB_OFFLINE is set, so the hub was not asked")
    from tallow.hub.fetch import download_snapshot

    place = repository_folder(base, cache_dir)
    try:
        return download_snapshot(base, place, revision, token, _not_found(name, looked), tag)
    except DownloadError as error:
        snapshot = _snapshot_folder(place, revision)
        cached = _only_gguf(snapshot, tag) if snapshot else None
        if cached is None:
            raise
        logger.warning("%s; the cache's %s is taken without asking for others", error, os.path.basename(cached))
        return cached


def _chosen(folder: str, tag: str) -> str:
    """The first file of the GGUF model in a folder that has this quantisation."""
    try:
        return os.path.join(folder, choose_gguf(files_under(folder), tag)[0])
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{folder}: {error}") from None


def download(
    repo: str,
    filename: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | None = None,
) -> str:
    """One file of a model on the hub, from the cache if it is there.

    Args:
        repo: the model's name, such as ``"openai/whisper-tiny"``.
        filename: the file's path in it.
        revision: branch, tag or commit; None means ``main``.
        token: see ``resolve``.
        cache_dir: see ``resolve``.

    Returns:
        Where it lies on this disk.

    Raises:
        ModelNotFoundError: if there is no such model, revision or file.
        DownloadError: if it can't be downloaded.
    """
    if not _REPOSITORY.fullmatch(repo) or ".." in repo or "--" in repo:
        raise ModelNotFoundError(f"{repo!r} is not the name of a model on the hub; expected owner/name")
    if not is_inside(filename):
        raise ModelNotFoundError(f"{filename!r} is not a file's path in a repository")
    folder = repository_folder(repo, cache_dir)
    snapshot = _snapshot_folder(folder, revision)
    path = os.path.join(snapshot, filename) if snapshot else ""
    if os.path.isfile(path):
        return path
    if is_offline():
        raise ModelNotFoundError(f"{repo}/{filename} is not in {folder}, and HF_HUB_OFFLINE is set")
    from tallow.hub.fetch import download_file

    return download_file(repo, filename, folder, revision, token)


def cached_snapshot(
    name: str, cache_dir: Path | None = None, revision: str | None = None, tag: str | None = None
) -> str | None:
    """The folder of a model in the Hugging Face cache, if all files that Tallow needs of it are there.

    Of a model in GGUF it is its (first) file, that of the quantisation ``tag`` if one is given.
    """
    folder = _snapshot_folder(repository_folder(name, cache_dir), revision)
    if folder is None:
        return None
    if tag is None and is_complete(folder):
        return folder
    if tag is None and not is_offline():
        return None  # the cache has the GGUF files that were asked for, the hub may have others and other weights
    return _only_gguf(folder, tag)


def _only_gguf(folder: str, tag: str | None) -> str | None:
    """The (first) file of the GGUF model in a folder, of those with a quantisation if one is given; None of several."""
    fitting = [first for first in gguf_models(files_under(folder)) if tag is None or has_tag(first, tag)]
    return os.path.join(folder, *fitting[0].split("/")) if len(fitting) == 1 else None


def repository_folder(name: str, cache_dir: Path | None = None) -> str:
    """Where the Hugging Face cache keeps a model."""
    return os.path.join(os.fspath(cache_dir or _cache()), "models--" + name.replace("/", "--"))


def is_complete(folder: str) -> bool:
    """Whether a folder has a config and all of its weights. A link to a file that has gone counts as no file."""

    def has(file: str) -> bool:
        return os.path.isfile(os.path.join(folder, file))

    if not has("config.json"):
        return False
    if has("model.safetensors") or has("model.bin"):
        return True
    index = "model.safetensors.index.json"
    if has(index):
        return all(has(file) for file in shards(os.path.join(folder, index)))
    return any(file.endswith(".safetensors") and has(file) for file in os.listdir(folder))


def shards(index: str) -> list[str]:
    """The files that an index names. Raises WeightsError for one that leads out of the folder."""
    files = read_json(index).get("weight_map")
    names = sorted(set(map(str, files.values()))) if isinstance(files, dict) else []
    if not names or not all(is_inside(name) for name in names):
        raise WeightsError(f"{index}: expected an object 'weight_map' of tensor names and names of files in its folder")
    return names


def wanted_files(files: list[str], tag: str | None = None) -> list[str]:
    """Which of a repository's files Tallow needs, the weights last; of sharded weights only their index.

    Of GGUF files, which hold all that a model needs, they are the parts of the one of quantisation ``tag``, or of the
    only one, if the repository holds nothing else.

    Raises:
        WeightsError: if the weights are there only as a pickle.
        ModelNotFoundError: if there are no weights.
    """
    if tag is not None:
        return choose_gguf(files, tag)
    top = sorted(file for file in files if "/" not in file)
    small = [file for file in top if file.endswith((".json", ".txt", ".jinja")) and ".index." not in file]
    small = [file for file in small if not file.lower().startswith(("readme", "license"))]
    small += sorted(file for file in files if re.fullmatch(r"additional_chat_templates/[^/]+\.jinja", file))
    singles = [file for file in top if file.endswith(".safetensors")]
    for weights in ("model.safetensors", "model.safetensors.index.json", "model.bin"):
        if weights in top:
            return [*small, weights]
    if len(singles) == 1:
        return [*small, *singles]
    if any(file.lower().endswith(".gguf") for file in files):
        return choose_gguf(files, None)
    if any(file.startswith(PICKLES) for file in top):
        raise WeightsError(pickled("the repository"))
    raise ModelNotFoundError(f"holds no weights that Tallow reads; it has {', '.join(top) or 'no files'}")


def as_name(name_or_path: Path) -> str:
    """A model's name or path as text. Raises ArgumentError for what is neither."""
    name = os.fspath(name_or_path) if isinstance(name_or_path, str | os.PathLike) else None
    if not isinstance(name, str):
        raise ArgumentError(f"expected a model's name or a path, found {type(name_or_path).__name__}")
    return name


def is_offline() -> bool:
    """Whether the user has forbidden to ask the hub."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.lower() in _TRUE


def is_inside(path: str) -> bool:
    """Whether a relative path stays in its folder."""
    parts = path.split("/")
    return bool(path) and not set(path) & set("\\:\0") and not any(part in ("", ".", "..") for part in parts)


def _cache() -> str:
    environment: Any = os.environ
    base = environment.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = environment.get("HF_HOME") or os.path.join(base, "huggingface")
    cache = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return os.path.expandvars(os.path.expanduser(cache))


def _snapshot_folder(folder: str, revision: str | None) -> str | None:
    """The snapshot that a revision means, by the cache's own notes of what branches and tags point at."""
    commit = revision or "main"
    if not is_inside(commit):
        raise ModelNotFoundError(f"{revision!r} is not a branch, tag or commit")
    if not _COMMIT.fullmatch(commit):
        try:
            with open(os.path.join(folder, "refs", *commit.split("/"))) as file:
                commit = file.read(100).strip()
        except (OSError, UnicodeDecodeError):
            return None
    snapshot = os.path.join(folder, "snapshots", commit)
    return snapshot if _COMMIT.fullmatch(commit) and os.path.isdir(snapshot) else None


def _not_found(name: str, looked: list[str]) -> str:
    return f"no model {name!r}. Looked at: {'; '.join(looked)}"
