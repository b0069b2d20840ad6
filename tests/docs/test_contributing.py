"""CONTRIBUTING.md speaks of files and lists that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = {
    path for path in re.findall(r"[\w./-]+/[\w./-]*", PAGE) if path.startswith(("src/", "tests/", "csrc/", "docs/"))
}
NAMES = re.findall(r"`(\w+)`(?: in|,? of) `((?:src|tests|csrc)/[\w./]+)`", PAGE)


@pytest.mark.parametrize("path", sorted(path for path in FILES if "NAME" not in path))
def test_files_are_there(path):
    assert (ROOT / path.rstrip(".")).exists()


def test_lists_are_in_their_files():
    assert len(NAMES) > 15
    for name, path in NAMES:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8")), f"{name} in {path}"
