"""Files from the Hugging Face hub into its cache, so that every other program of the user's finds them there too.

The hub is asked through ``huggingface_hub``, which knows its API, its tokens and its errors. The files themselves are
kept here while they arrive, because an interrupted download is to go on where it stopped, and that library throws
away what it had.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tallow.errors import DownloadError, ModelNotFoundError, TallowError
from tallow.hub.locate import is_inside, shards, wanted_files
from tallow.trace import span

logger = logging.getLogger("tallow")


class RemoteFile(NamedTuple):
    """One file of a repository at one commit.

    Attributes:
        name: its path there.
        size: in bytes.
        blob: what the cache calls its contents: SHA-256 of a large file, git's SHA-1 of a small one.
    """

    name: str
    size: int
    blob: str


def download_snapshot(
    name: str, folder: str, revision: str | None, token: str | None, not_found: str, tag: str | None = None
) -> str:
    """Download what Tallow needs of a model.

    Args:
        name: the model's name on the hub.
        folder: its folder in the cache.
        revision: branch, tag or commit; None means ``main``.
        token: for private and gated models.
        not_found: what to say if the hub has no such model.
        tag: of which quantisation, for a model in GGUF.

    Returns:
        The snapshot's folder; of a model in GGUF its (first) file.

    Raises:
        ModelNotFoundError: if the hub has no such model or revision.
        DownloadError: if it can't be reached, refuses, or the disk is full.
    """
    with span("download", model=name), _explained(name, revision, not_found):
        commit, files = _list_files(name, revision, token)
        try:
            wanted = wanted_files(list(files), tag)
        except TallowError as error:
            raise type(error)(f"{name}: {error}") from None
        snapshot = os.path.join(folder, "snapshots", commit)
        fetch = _Fetcher(name, folder, commit, token).fetch
        _check_space(folder, [files[file] for file in wanted])
        for file in wanted:
            path = fetch(files[file])
            if file.endswith(".safetensors.index.json"):
                needed = shards(path)
                missing = [shard for shard in needed if shard not in files]
                if missing:
                    raise DownloadError(f"{name}: the index names {missing[0]}, which the repository lacks")
                _check_space(folder, [files[shard] for shard in needed])
                for shard in needed:
                    fetch(files[shard])
        _write_ref(folder, revision, commit)
    first = next((file for file in wanted if file.lower().endswith(".gguf")), None)
    return snapshot if first is None else os.path.join(snapshot, *first.split("/"))


def download_file(name: str, filename: str, folder: str, revision: str | None, token: str | None) -> str:
    """Download one file of a repository; where it lies then. Raises as ``download_snapshot`` does."""
    with span("download", model=name), _explained(name, revision, f"the hub has no model {name!r}"):
        commit, files = _list_files(name, revision, token)
        if filename not in files:
            raise ModelNotFoundError(f"{name} has no file {filename!r}; it has {', '.join(sorted(files))}")
        path = _Fetcher(name, folder, commit, token).fetch(files[filename])
        _write_ref(folder, revision, commit)
    return path


def _list_files(name: str, revision: str | None, token: str | None) -> tuple[str, dict[str, RemoteFile]]:
    """The commit that a revision means, and its files."""
    from huggingface_hub import HfApi

    info = HfApi(_endpoint(), token, library_name="tallow").model_info(name, revision=revision, files_metadata=True)
    files: dict[str, RemoteFile] = {}
    for entry in info.siblings or []:
        blob = entry.lfs.sha256 if entry.lfs else entry.blob_id
        if is_inside(entry.rfilename) and blob and blob.isalnum() and entry.size is not None:
            files[entry.rfilename] = RemoteFile(entry.rfilename, entry.size, blob)
    if not info.sha or not info.sha.isalnum():
        raise DownloadError(f"{name}: the hub's answer names no commit")
    return info.sha, files


class _Fetcher:
    """Fetches files of one commit into the cache's ``blobs`` and links them into its ``snapshots``."""

    def __init__(self, name: str, folder: str, commit: str, token: str | None) -> None:
        self.name, self.folder, self.commit, self.token = name, folder, commit, token
        self.snapshot = os.path.join(folder, "snapshots", commit)

    def fetch(self, file: RemoteFile) -> str:
        """One file; its path in the snapshot."""
        path = os.path.join(self.snapshot, *file.name.split("/"))
        if os.path.isfile(path):
            return path
        blob = os.path.join(self.folder, "blobs", file.blob)
        os.makedirs(os.path.dirname(blob), exist_ok=True)
        with _lock(blob):
            if not os.path.isfile(blob):
                self._fetch_blob(file, blob)
        _link(blob, path)
        return path

    def _fetch_blob(self, file: RemoteFile, blob: str) -> None:
        """Get the bytes, from where an earlier try stopped; they take the blob's name only when they are right."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        part = blob + ".tallow-part"
        with open(part, "ab") as target:
            start = target.tell()
            if start > file.size:
                target.truncate(0)
                start = 0
            if start:
                logger.info("%s/%s: going on at byte %d of %d", self.name, file.name, start, file.size)
            try:
                http_get(
                    hf_hub_url(self.name, file.name, revision=self.commit, endpoint=_endpoint()),
                    target,
                    resume_size=start,
                    headers=build_hf_headers(token=self.token, library_name="tallow"),
                    expected_size=file.size,
                    displayed_filename=file.name,
                )
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):  # what is there would only keep the disk full
                    target.truncate(0)
                    os.unlink(part)
                raise
        if not _has_digest(part, file):
            os.unlink(part)
            raise DownloadError(f"{self.name}/{file.name}: what arrived is not what the hub lists; try again")
        os.replace(part, blob)


def _has_digest(path: str, file: RemoteFile) -> bool:
    import hashlib

    if os.path.getsize(path) != file.size:
        return False
    if len(file.blob) == 64:
        digest = hashlib.sha256()
    else:  # git's name for a blob
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with open(path, "rb") as data:
        while chunk := data.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == file.blob


def _link(blob: str, path: str) -> None:
    """Put a blob into a snapshot: a relative link, as the cache's layout has it; a copy where there are no links."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    try:
        os.symlink(os.path.relpath(blob, os.path.dirname(path)), path)
    except (OSError, NotImplementedError):
        temporary = path + ".tallow-part"
        shutil.copyfile(blob, temporary)
        os.replace(temporary, path)


@contextmanager
def _lock(blob: str) -> Iterator[None]:
    """Let only one process at a time write a blob; the others wait."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    repository = os.path.dirname(os.path.dirname(blob))
    place = os.path.join(os.path.dirname(repository), ".locks", os.path.basename(repository))
    os.makedirs(place, exist_ok=True)
    with WeakFileLock(os.path.join(place, os.path.basename(blob) + ".lock")):
        yield


def _write_ref(folder: str, revision: str | None, commit: str) -> None:
    """Note what a branch or tag points at, once all files of the commit are there."""
    name = revision or "main"
    if name == commit:
        return
    path = os.path.join(folder, "refs", *name.split("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w") as file:
        file.write(commit)
    os.replace(temporary, path)


def _check_space(folder: str, files: list[RemoteFile]) -> None:
    """Refuse a download that cannot fit, before it has begun."""
    blobs = os.path.join(folder, "blobs")
    needed = sum(file.size for file in files if not os.path.exists(os.path.join(blobs, file.blob)))
    place = folder
    while not os.path.exists(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DownloadError(f"{place}: the disk has {free / 1e6:,.0f} MB free, the model needs {needed / 1e6:,.0f} MB")


@contextmanager
def _explained(name: str, revision: str | None, not_found: str) -> Iterator[None]:
    """Turn whatever the hub's library raises into one of ours that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except TallowError:
        raise
    except errors.GatedRepoError:
        raise DownloadError(
            f"{name} is gated: accept its conditions at {_endpoint()}/{name} and give your token "
            "(token=, HF_TOKEN, or `hf auth login`)"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"{not_found}; the hub {_endpoint()}. A private model needs your token (token= or HF_TOKEN)"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFoundError(f"{name} has no revision {revision!r} on {_endpoint()}") from None
    except errors.EntryNotFoundError as error:
        raise DownloadError(f"{name}: the hub lists a file that it does not give: {_first_line(error)}") from None
    except errors.HfHubHTTPError as error:
        raise DownloadError(f"{name}: the hub refused: {_first_line(error)}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(f"{name}: the disk is full; free some space and try again") from None
        if error.errno is not None and error.filename is not None:
            raise DownloadError(f"{name}: {error.filename}: {error.strerror}") from None
        raise DownloadError(_unreachable(not_found, error)) from None
    except Exception as error:  # the HTTP client's own errors, which differ from one version of the library to the next
        raise DownloadError(_unreachable(not_found, error)) from None


def _unreachable(not_found: str, error: Exception) -> str:
    reason = f"{type(error).__name__}: {_first_line(error)}"
    return f"{not_found}. The hub {_endpoint()} could not be asked ({reason}): is there a network?"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
