"""Every kernel is compiled for every architecture, which needs no card."""

import subprocess
import sys

import pytest

from tallow.backends.cuda import compiler
from tallow.errors import DeviceError

try:
    compiler.version()
except DeviceError as error:
    pytest.skip(str(error), allow_module_level=True)

NORM = {"T": "bf16", "W": "f32", "ROW": 128, "VECTOR": 8, "COUNT": 4}
MATVEC = {"X": "bf16", "Y": "bf16", "W": "bf16", "ROWS": 1, "WARPS": 4, "GATED": 0, "SCALED": 0, "NORM": 0, "DEPTH": 2}
SPLIT = {"T": "bf16", "C": "bf16", "D": 128, "Q": 1, "THREADS": 512, "PAGED": 1}
BLOCKS = {"X": "bf16", "W": "f32", "ROWS": 4, "TILES": 1, "WARPS": 4, "AT_ONCE": 8, "GATED": 0, "NORM": 0,
          "FORMAT": "Blocks<bf16,4,32,0,1,0>"}  # fmt: skip
ATTEND = {"T": "bf16", "HEAD": 128, "QUERIES": 2, "CLUSTER": 8, "AT_ONCE": 4, "DEPTH": 2}
HOPPER = {"WINDOWED": 0, "T": "bf16", "HEAD": 64, "GROUPS": 1, "RESIDENT": 4, "STAGES": 2, "ROTARY": 0, "PAGED": 0}
WHOLE = {"T": "bf16", "ROTARY": 0}
FLASH = {"T": "bf16", "HEAD": 128, "TILES": 2, "MASKED": 0, "WINDOWED": 0, "PAGED": 0}
VARIANTS = [
    ("norm.cu", NORM),
    ("norm.cu", NORM | {"T": "f16", "ROW": 4, "VECTOR": 1, "COUNT": 1}),
    ("elementwise.cu", {"T": "f16", "W": "f16", "VECTOR": 8}),
    ("elementwise.cu", {"T": "f32", "W": "bf16", "VECTOR": 1}),
    ("matvec.cu", MATVEC),
    ("matvec.cu", MATVEC | {"WARPS": 1, "GATED": 1, "NORM": 1, "DEPTH": 6}),
    ("matvec.cu", MATVEC | {"X": "f32", "Y": "f16", "W": "f32", "ROWS": 8, "NORM": 2}),
    ("matvec.cu", MATVEC | {"Y": "e4m3", "SCALED": 1, "ROWS": 2}),
    ("matvec.cu", MATVEC | {"Y": "e4m3", "SCALED": 2, "GATED": 1}),
    ("fp8.cu", {"X": "bf16", "VECTOR": 16}),
    ("fp8.cu", {"X": "f32", "VECTOR": 1}),
    ("kv_append.cu", {"T": "f32", "C": "f16"}),
    ("rotary.cu", {"T": "bf16", "C": "bf16", "D": 128, "G": "bf16"}),
    ("rotary.cu", {"T": "f32", "C": "f16", "D": 64, "G": "f32"}),
    ("blocks.cu", BLOCKS),
    ("blocks.cu", BLOCKS | {"X": "f16", "FORMAT": "Blocks<f16,8,16,2,0,0>", "ROWS": 16, "TILES": 2}),
    ("blocks.cu", BLOCKS | {"X": "f32", "FORMAT": "Blocks<f32,6,16,1,0,32>", "ROWS": 8}),
    ("blocks.cu", BLOCKS | {"FORMAT": "Blocks<bf16,5,32,1,1,0>", "WARPS": 16, "AT_ONCE": 2, "NORM": 1}),
    ("blocks.cu", BLOCKS | {"TILES": 2, "GATED": 1, "NORM": 2}),
    ("attend.cu", ATTEND),
    ("attend.cu", ATTEND | {"T": "f16", "HEAD": 64, "QUERIES": 4, "CLUSTER": 1}),
    ("copy.cu", {"V": "uint4", "AXES": 3}),
    ("copy.cu", {"V": "u8", "AXES": 1}),
    ("argmax.cu", {"T": "bf16"}),
    ("top_logprobs.cu", {"T": "bf16"}),
    ("top_logprobs.cu", {"T": "f32"}),
    ("image.cu", {"T": "bf16", "VECTOR": 4}),
    ("image.cu", {"T": "f32", "VECTOR": 1}),
    ("positions.cu", {}),
    ("mel.cu", {"N_FFT": 400, "RADICES": "4,4,5,5", "FRAMES": 5, "LOG": 2}),
    ("mel.cu", {"N_FFT": 1470, "RADICES": "2,3,5,7,7", "FRAMES": 1, "LOG": 0}),
    ("mel.cu", {"N_FFT": 1, "RADICES": "1", "FRAMES": 32, "LOG": 3}),
    ("sample.cu", {"T": "bf16", "DIGITS": 2, "THREADS": 512}),
    ("sample.cu", {"T": "f16", "DIGITS": 3, "THREADS": 1024}),
    ("sample.cu", {"T": "f32", "DIGITS": 4, "THREADS": 512}),
    ("attention_split.cu", SPLIT),
    ("attention_split.cu", SPLIT | {"T": "f32", "C": "f32", "D": 64, "Q": 4, "THREADS": 256, "PAGED": 0}),
    ("attention_flash.cu", FLASH),
    ("attention_flash.cu", FLASH | {"T": "f16", "HEAD": 256, "TILES": 1, "PAGED": 1}),
    ("attention_flash.cu", FLASH | {"HEAD": 64, "PAGED": 1}),
    ("attention_flash.cu", FLASH | {"MASKED": 1, "WINDOWED": 1}),
    ("attention_flash.cu", FLASH | {"T": "f16", "HEAD": 24, "TILES": 1, "MASKED": 1}),
    ("attention_whole.cu", WHOLE),
    ("attention_whole.cu", WHOLE | {"T": "f16", "ROTARY": 1}),
    ("attention_hopper.cu", HOPPER),
    ("attention_hopper.cu", HOPPER | {"GROUPS": 2, "RESIDENT": 2, "ROTARY": 1}),
    ("attention_hopper.cu", HOPPER | {"T": "f16", "HEAD": 128, "RESIDENT": 2}),
    ("attention_hopper.cu", HOPPER | {"HEAD": 128, "RESIDENT": 2, "PAGED": 1, "WINDOWED": 1}),
    ("attention_hopper.cu", HOPPER | {"HEAD": 128, "RESIDENT": 2, "ROTARY": 1}),
    ("attention_hopper.cu", HOPPER | {"HEAD": 128, "RESIDENT": 2, "PAGED": 1}),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tallow" / "kernels"


@pytest.mark.slow
@pytest.mark.parametrize("arch", compiler.ARCHITECTURES)
@pytest.mark.parametrize(("file", "macros"), VARIANTS, ids=lambda value: value if type(value) is str else "")
def test_every_kernel_compiles_without_warnings_for_every_architecture(file, macros, arch):
    options = [f"-D{name}={value}" for name, value in macros.items()]
    code = compiler.compiled(file, [f"--gpu-architecture=sm_{arch}", "-std=c++17", "-Werror=all-warnings", *options])
    assert code[:4] == b"\x7fELF"


def test_every_source_is_among_those_compiled():
    from importlib import resources

    files = {entry.name for entry in resources.files("tallow.backends.cuda").iterdir() if entry.name.endswith(".cu")}
    assert files == {file for file, _ in VARIANTS}


def test_code_is_kept_and_found_again(folder, monkeypatch):
    first = compiler.machine_code("norm.cu", NORM, "80")
    monkeypatch.setattr(compiler, "compiled", lambda *_: pytest.fail("compiled again"))
    assert compiler.machine_code("norm.cu", NORM, "80") == first
    assert len(list(folder.iterdir())) == 1


def test_other_options_architectures_and_drivers_have_files_of_their_own(folder, monkeypatch):
    monkeypatch.setattr(compiler, "compiled", lambda file, options: " ".join([file, *options]).encode())
    for macros, arch in (({"T": "f32"}, "80"), ({"T": "f16"}, "80"), ({"T": "f16"}, "90a")):
        compiler.machine_code("norm.cu", macros, arch)
    monkeypatch.setattr(compiler, "driver_version", lambda: (99, 0))
    compiler.machine_code("norm.cu", {"T": "f16"}, "90a")
    assert len(list(folder.iterdir())) == 4


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compiler.machine_code("norm.cu", NORM, "80")[:4] == b"\x7fELF"


def test_what_nvrtc_says_is_told():
    with pytest.raises(DeviceError, match=r"norm\.cu.*(undefined|undeclared|unknown)"):
        compiler.compiled("norm.cu", ["--gpu-architecture=sm_80"])  # T is not said


def test_processes_that_compile_at_once_leave_one_whole_file(folder):
    code = (
        "from tallow.backends.cuda.compiler import machine_code; "
        "print(len(machine_code('elementwise.cu', {'T': 'f32', 'W': 'f32', 'VECTOR': 4}, '80')))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sizes = {int(process.communicate()[0]) for process in running}
    (kept,) = folder.iterdir()
    assert sizes == {kept.stat().st_size}


def test_the_architecture_of_a_card():
    found = [compiler.architecture(capability) for capability in ((8, 0), (8, 9), (9, 0), (10, 0), (12, 0))]
    assert found == ["80", "89", "90a", "100a", "120"]
