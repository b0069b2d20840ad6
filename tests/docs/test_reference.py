"""The reference in docs/reference names every public object, and only what there is."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import tallow as tl
from tallow import dtypes

PAGES = sorted((Path(__file__).parents[2] / "docs/reference").glob("*.md"))
PLAIN = dtypes.DType, float, type(None)  # data types and constants, which tensors.md lists in a sentence
OPERATORS = {"getitem", "setitem"}  # written x[i]


def entries(page):
    """The objects that a page has docstrings of, as (path of what they are in, their name)."""
    for path, options in re.findall(r"^::: (\S+)\n((?:[ ]+.*\n)*)", page.read_text(encoding="utf-8"), re.M):
        members = re.search(r"members: \[([^\]]*)\]", options)
        if "show_root_heading: false" not in options:
            yield path.rpartition(".")[::2]
        for name in re.split(r"[,\s]+", members[1].strip()) if members and members[1] else ():
            yield path, name


def resolve(path):
    """The module or class of a dotted path."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        parent, _, name = path.rpartition(".")
        return getattr(resolve(parent), name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_pages_name_is_there(page):
    found = list(entries(page))
    assert found
    assert len(found) == len(set(found)), "something is named twice"
    for path, name in found:
        assert hasattr(resolve(path), name), f"{path}.{name}"
        # Where a module has the name as well, mkdocstrings takes the module, and leaves it out without a word.
        assert not is_module(f"{path}.{name}"), f"{path}.{name} is a module too"


def is_module(path):
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:  # the parent is a class or a module without others in it
        return False


@pytest.mark.parametrize("module", [tl, tl.ops, tl.nn, tl.media, tl.hub, tl.linalg, tl.fft], ids=lambda m: m.__name__)
def test_every_public_name_is_on_a_page(module):
    documented = {id(getattr(resolve(path), name)) for page in PAGES for path, name in entries(page)}
    public = {name: getattr(module, name) for name in module.__all__ if name not in OPERATORS}
    missing = [
        name
        for name, value in public.items()
        if id(value) not in documented and type(value) is not type(tl) and not isinstance(value, PLAIN)
    ]
    assert not missing
