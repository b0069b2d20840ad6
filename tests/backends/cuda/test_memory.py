"""A card without memory: what is told, and that all goes on afterwards. As the tests fill the card, they run alone."""

import os
import subprocess
import sys

import numpy as np
import pytest

import tallow as tl
from tallow.matrix.weight import make_weight
from tallow.models.registry import find_class
from tallow.ops import linear
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder
from tests.backends.cuda.gpu import needs_gpu, numbers
from tests.backends.cuda.test_models import qwen
from tests.models import tiny_dino

pytestmark = [
    *needs_gpu,
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="fills the card, which other tests are using"),
]
MB = 1_000_000


@pytest.fixture
def leave():
    """Takes the card's memory but for so many bytes, as another program would."""
    import cupy

    held, pool = [], cupy.get_default_memory_pool()

    def take(nbytes):
        pool.free_all_blocks()
        step = 1 << 36
        while step >= 1 << 21:
            if cupy.cuda.runtime.memGetInfo()[0] - nbytes >= step:
                held.append(cupy.cuda.Memory(step))
            else:
                step //= 2

    tl.ones((64, 64), device="cuda") @ tl.ones((64, 64), device="cuda")  # CUDA's own needs are met
    yield take
    held.clear()
    pool.free_all_blocks()


def works():
    x = tl.ones((300, 300), device="cuda")
    assert (x + 1).sum().item() == 180_000
    return True


def test_operations(leave):
    leave(100 * MB)
    with pytest.raises(tl.OutOfMemoryError, match=r"zeros: cuda:0 cannot give 1,073\.7 MB: of .* free.*smaller batch"):
        tl.zeros(1 << 28, device="cuda")
    x = tl.ones(1 << 24, device="cuda")
    with pytest.raises(tl.OutOfMemoryError, match=r"cannot give 67\.1 MB"):
        tl.exp(x)
    with pytest.raises(tl.OutOfMemoryError, match="cannot give"):
        x.to("cpu").to("cuda")
    del x
    assert works()
    assert tl.ones(1 << 24, device="cuda").sum().item() == 1 << 24


def test_products(leave):
    x, weight = (Tensor(numbers(rows, 256)).to("cuda", "bfloat16") for rows in (4096, 16384))
    leave(100 * MB)
    with pytest.raises(tl.OutOfMemoryError, match=r"linear: cuda:0 cannot give 134\.2 MB"):
        linear(x, weight)
    assert works()


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8", "q4_1"])
def test_weights(leave, storage):
    leave(8 * MB)
    matrix, device = numbers(4096, 4096), tl.Device("cuda")
    with pytest.raises(tl.OutOfMemoryError, match=r"a matrix \(4096, 4096\) in .* cannot give"):
        make_weight(matrix, storage, device)
    weight = make_weight(matrix[:64, :64], storage, device)
    assert np.abs(weight.dequantize().numpy() - matrix[:64, :64]).max() < 0.3
    assert works()


def test_a_recording_that_does_not_fit_gives_all_back(leave):
    import cupy

    x = tl.ones((2048, 2048), device="cuda")  # 17 MB
    leave(150 * MB)
    before = cupy.cuda.runtime.memGetInfo()[0]

    def kept():
        results = [x + float(i) for i in range(20)]
        return sum(results[1:], results[0])

    with pytest.raises(tl.OutOfMemoryError, match="cannot give"):
        Recording(kept, x.device)
    assert before - cupy.cuda.runtime.memGetInfo()[0] <= 4 * MB
    recording = Recording(lambda: x + 1.0, x.device)
    x[...] = 4.0
    assert recording.replay()[0, :2].tolist() == [5.0, 5.0]


def test_a_recording_takes_what_past_tensors_have_left(leave):
    x = tl.ones((2048, 2048), device="cuda")
    leave(150 * MB)
    tl.zeros(25 * MB, device="cuda")  # times 4 bytes, and gone
    assert tl.memory_info().kept >= 100 * MB
    recording = Recording(lambda: [x + float(i) for i in range(5)], x.device)
    assert recording.replay()[4][0, 0].item() == 5.0


def test_a_context_longer_than_memory(leave):
    model = qwen("cuda", "bfloat16")
    leave(200 * MB)
    wanted = r"keys and values of 2 × 1,000,000 tokens take 3,072 MB, cuda:0 has \d+ MB free; take fewer max_tokens"
    with pytest.raises(tl.OutOfMemoryError, match=wanted):
        model.new_cache(2, 1_000_000)
    assert tl.memory_info().free >= 190 * MB
    assert len(model.generate([3, 1, 4], max_tokens=5, temperature=0, ignore_eos=True).ids) == 5


def test_a_long_prompt_that_does_not_fit(leave):
    model = qwen("cuda", "bfloat16")
    ids = np.random.default_rng(0).integers(0, 500, (64, 400))
    model.generate([3, 1, 4], max_tokens=2, temperature=0)
    leave(60 * MB)
    with pytest.raises(tl.OutOfMemoryError):
        model.forward(Tensor(ids), model.new_cache(64, 400))
    assert len(model.generate([3, 1, 4], max_tokens=5, temperature=0, ignore_eos=True).ids) == 5


def test_encoders_go_on_without_a_recording_that_does_not_fit(leave, monkeypatch):
    from tallow.backends.cuda.graph import Graph
    from tallow.runtime.encoding import encode

    model_class = find_class("dinov3_vit")
    model = model_class(model_class.Config.from_dict(tiny_dino.CONFIGS["vit"]), VarBuilder.random(0, None, "cuda"))
    pixels = Tensor(numbers(2, 3, 32, 32)).to("cuda")
    expected = encode(model, pixels).numpy()

    def nothing(self, nbytes):
        import cupy

        raise cupy.cuda.memory.OutOfMemoryError(nbytes, 0)

    monkeypatch.setattr(Graph, "_allocate", nothing)
    for _ in range(3):
        assert np.array_equal(encode(model, pixels).numpy(), expected)


@pytest.mark.parametrize("lacks", [True, False])
def test_a_session_goes_on_after_a_recording_came_to_nothing(monkeypatch, lacks):
    import cupy

    from tallow.backends.cuda.graph import Graph

    prompt, options = [3, 1, 4, 1, 5], {"max_tokens": 10, "temperature": 0, "ignore_eos": True}
    expected = qwen("cuda").session().generate(prompt, **options).ids
    session = qwen("cuda").session()

    def fails(self, nbytes):
        raise cupy.cuda.memory.OutOfMemoryError(nbytes, 0) if lacks else KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Graph, "_allocate", fails)
        with pytest.raises(tl.OutOfMemoryError if lacks else KeyboardInterrupt):
            session.generate(prompt, **options)
    assert session.generate(prompt, **options).ids == expected


def test_models_are_refused_with_figures(leave, tmp_path):
    folder = tiny_dino.write(tmp_path / "dino")
    leave(4 * MB)
    with pytest.raises(tl.OutOfMemoryError, match=r"needs about [\d,]+ MB .* cuda:0 has \d+ MB free"):
        tl.load(folder, device="cuda")


def test_a_process_that_finds_the_card_taken_tells_it_in_one_line(leave, tmp_path):
    folder = tiny_dino.write(tmp_path / "dino")
    photo = tmp_path / "photo.png"
    from PIL import Image

    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(photo)
    leave(20 * MB)
    command = [sys.executable, "-m", "tallow", "embed", str(photo), "--model", str(folder), "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("tallow: error: ")
    assert "memory" in done.stderr
