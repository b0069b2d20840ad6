"""Imports go down the floors of ``docs/architecture.md``, those for type checkers and those inside functions too."""

import ast
from pathlib import Path

import pytest

import tallow

ROOT = Path(tallow.__file__).parent

# From the ground up: what stands on one line may import from its own line and from those above it here.
FLOORS = (
    ("errors", "trace", "_cpu"),
    ("dtypes", "device", "inspection"),
    ("tensor", "operators", "dlpack", "matrix", "ops"),  # a tensor's methods are operations
    ("weights",),
    ("backends",),
    ("runtime",),
    ("nn", "media", "text", "search"),
    ("engine",),
    ("models",),
    ("hub",),
    ("loading", "convert"),
    ("cli", "__main__"),
)
# Where an operation, or a matrix that is packed, asks for the backend of its device.
BACKENDS_ARE_CHOSEN = {"ops.dispatch", "ops.kv_cache", "matrix.weight"}

LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path):
    """The modules of Tallow that a file imports, without ``tallow.``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name[7:] for alias in node.names if alias.name.startswith("tallow."))
        elif isinstance(node, ast.ImportFrom) and node.module == "tallow":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tallow."):
            yield node.module[7:]


def test_every_module_has_a_floor():
    assert {name_of(path).partition(".")[0] for path in MODULES} <= LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path):
    module = name_of(path)
    own = LEVEL[module.partition(".")[0]]
    up = {target for target in imported(path) if LEVEL.get(target.partition(".")[0], 0) > own}
    if module in BACKENDS_ARE_CHOSEN:
        up = {target for target in up if not target.startswith("backends")}
    assert not up
