"""Where models come from: installed packages, the Hugging Face cache, the hub."""

from tallow.hub.locate import as_name, cached_snapshot, download, repository_folder, resolve

__all__ = ["as_name", "cached_snapshot", "download", "repository_folder", "resolve"]
