"""What the package brings and what importing it costs, counted in modules."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tallow

ROOT = Path(__file__).parents[1]
HEAVY = {"av", "PIL", "tokenizers", "huggingface_hub", "safetensors", "cupy", "tqdm", "jinja2", "torch", "asyncio"}


def modules_after(code):
    """Names of the modules in a fresh interpreter after it has run some code."""
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_tallow_imports_nothing_else():
    brought = modules_after("import tallow") - modules_after("")
    assert {name for name in brought if name.startswith("tallow")} == {"tallow"}
    assert not {name.partition(".")[0] for name in brought} & (HEAVY | {"numpy", "ml_dtypes"})


@pytest.mark.parametrize(
    "code",
    [
        "import tallow as tl; tl.asarray([1.0, 2.0]) + tl.ones(2)",
        "import tallow as tl; tl.nn.Linear(2, 3, tl.VarBuilder.random())(tl.zeros((1, 2)))",
        "import tallow as tl; [getattr(tl, name) for name in tl.__all__]",
        "from tallow.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass",
    ],
)
def test_tensors_layers_and_every_public_name_bring_no_heavy_library(code):
    brought = {name.partition(".")[0] for name in modules_after(code)}
    assert not brought & HEAVY


def test_what_a_first_tensor_imports_stays_small():
    """The budget of 45 ms over ``import numpy``, as a number of modules: a module costs about half a millisecond."""
    brought = modules_after("import tallow as tl; tl.asarray([1.0]) + 1") - modules_after("import numpy")
    assert len(brought) <= 80, sorted(brought)


@pytest.mark.parametrize("name", tallow.__all__)
def test_every_public_name_is_there(name):
    assert getattr(tallow, name) is not None or name == "newaxis"
    assert name in dir(tallow)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'tallow' has no attribute 'tensorflow'"):
        tallow.tensorflow  # noqa: B018


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_said_once():
    assert project()["version"] == tallow.__version__


def test_required_dependencies_are_those_that_are_promised():
    names = {re.split(r"[<>=! ]", each)[0] for each in project()["dependencies"]}
    assert names == {
        "numpy",
        "ml_dtypes",
        "safetensors",
        "tokenizers",
        "huggingface_hub",
        "av",
        "Pillow",
        "Jinja2",
        "tqdm",
    }
    assert set(project()["optional-dependencies"]) >= {"starter", "dev", "oracle"}
    assert "torch" not in " ".join(project()["dependencies"])


@pytest.fixture
def installed():
    """The installed distribution; the tests also run on the source folder, without one."""
    try:
        distribution = importlib.metadata.distribution("tallow")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("tallow is not installed here, it runs from its source folder")
    return distribution


def test_the_wheel_holds_the_package_and_nothing_else(installed):
    files = {str(file) for file in installed.files if "__pycache__" not in str(file)}
    tops = {file.partition("/")[0] for file in files if not file.startswith("..")}
    assert tops == {"tallow", f"tallow-{tallow.__version__}.dist-info"}
    assert {"tallow/__init__.py", "tallow/py.typed", "tallow/cli/__init__.py"} <= files
    modules = [file for file in files if re.fullmatch(r"tallow/_cpu\.[\w.-]*(so|pyd)", file)]
    assert len(modules) == 1
    expected = "abi3" if sys.version_info >= (3, 12) else "cpython-311"
    assert expected in modules[0]
    assert not {file for file in files if file.endswith((".cpp", ".h", ".o", ".a"))}
    assert any(file.endswith("licenses/LICENSE") for file in files)


def test_the_wheel_says_who_may_use_it_and_with_which_python(installed):
    assert installed.version == tallow.__version__
    assert installed.metadata["Requires-Python"] == ">=3.11"
    assert installed.metadata["License-Expression"] == "Apache-2.0"
    assert "# Tallow" in installed.metadata.get_payload() or "# Tallow" in (installed.metadata["Description"] or "")


def test_the_command_is_installed(installed):
    command = Path(sys.executable).with_name("tallow.exe" if os.name == "nt" else "tallow")
    done = subprocess.run([command, "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"tallow {tallow.__version__}"
