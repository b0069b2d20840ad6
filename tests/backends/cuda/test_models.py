"""Whole models: on the card they say what they say on the CPU."""

import threading

import numpy as np
import pytest

import tallow as tl
from tallow.engine import step
from tallow.engine.step import CapturedStep, Decoder
from tallow.models.clap import Clap, ClapConfig
from tallow.models.gemma3 import Gemma3, Gemma3Config
from tallow.models.qwen3 import Qwen3, Qwen3Config
from tallow.models.registry import find_class
from tallow.models.whisper import Whisper, WhisperConfig
from tallow.models.whisper.session import DecoderSession
from tallow.ops import KVCache
from tallow.runtime.capture import Recording
from tallow.runtime.gpu import Arriving
from tallow.runtime.memory import CHUNK
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder
from tests.backends.cuda.gpu import error, needs_gpu, numbers

pytestmark = needs_gpu
QWEN = {
    "vocab_size": 500, "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 512, "tie_word_embeddings": True,
}  # fmt: skip
WHISPER = {
    "d_model": 128, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 256, "decoder_layers": 2,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 256, "vocab_size": 1800, "num_mel_bins": 80,
}  # fmt: skip
SHORTLY = {"temperature": 0, "max_tokens": 5, "ignore_eos": True}
# of a model's result in half precision, relative to float32: what rounding each layer's output makes of it
NEAR = {"float32": 2e-5, "float16": 1e-2, "bfloat16": 6e-2}


def qwen(device, dtype=None):
    return Qwen3(Qwen3Config.from_dict(QWEN), VarBuilder.random(0, dtype, device))


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("lengths", [[1], [70], [40, 40, 40], [150, 3]])
def test_qwen3_reads_the_same(dtype, lengths):
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 500, (len(lengths), max(lengths)))
    counts = None if len(set(lengths)) == 1 else lengths
    sides = []
    for model in (qwen("cpu"), qwen("cuda", dtype)):
        cache = model.new_cache(len(lengths), 200)
        hidden = model.forward(Tensor(ids), cache, counts)
        sides.append(model.logits(hidden[:, -1]))
    assert sides[1].device is tl.Device("cuda")
    assert sides[1].dtype.name == dtype
    assert error(sides[1].float(), sides[0]) <= NEAR[dtype]


def gemma(device, dtype=None):
    """Two layers of it see a window, the last one all."""
    sizes = QWEN | {"model_type": "gemma3_text", "sliding_window": 20, "sliding_window_pattern": 3}
    return Gemma3(Gemma3Config.from_dict(sizes), VarBuilder.random(0, dtype, device))


@pytest.mark.parametrize("dtype", NEAR)
def test_gemma3_reads_and_writes_the_same(dtype):
    ids, sides, written = np.random.default_rng(0).integers(0, 500, (2, 70)), [], []
    for model in (gemma("cpu"), gemma("cuda", dtype)):
        cache = model.new_cache(2, 80)
        assert cache.dtype.name == ("float32" if model.device.kind == "cpu" else dtype)
        sides.append(model.logits(model.forward(Tensor(ids), cache)[:, -1]).float())
        written.append(model.generate(ids[0].tolist(), max_tokens=30, temperature=0, ignore_eos=True).ids)
    assert error(sides[1], sides[0]) <= NEAR[dtype]
    assert dtype != "float32" or written[0] == written[1]


@pytest.mark.parametrize("prompts", [[[5, 9, 400]], [[5, 9, 400], [1] * 90, [7]]])
def test_qwen3_writes_the_same(prompts):
    written = [
        [answer.ids for answer in qwen(device).generate(prompts, max_tokens=40, temperature=0, ignore_eos=True)]
        for device in ("cpu", "cuda")
    ]
    assert written[0] == written[1]


def test_each_prompt_may_have_settings_of_its_own():
    prompts = [[5, 9, 400], [1] * 90, [7]]
    own = [
        {"temperature": 0.0},
        {"temperature": 0.9, "seed": 3, "logprobs": 2},
        {"temperature": 2.0, "top_k": 4, "seed": 1},
    ]
    sides = [
        qwen(device).generate(prompts, max_tokens=12, ignore_eos=True, per_prompt=own) for device in ("cpu", "cuda")
    ]
    for mine, theirs in zip(*sides, strict=True):
        assert mine.ids == theirs.ids
        assert (mine.logprobs is None) == (theirs.logprobs is None)
    assert sides[1][0].ids == qwen("cuda").generate(prompts[0], max_tokens=12, ignore_eos=True, temperature=0).ids
    assert [len(each.top) for each in sides[1][1].logprobs] == [2] * 12


@pytest.mark.parametrize("how", [{}, {"temperature": 0.9, "top_k": 30, "seed": 3}])
@pytest.mark.parametrize("logprobs", [0, 5])
def test_log_probabilities_are_found_by_the_step(monkeypatch, how, logprobs):
    """Only ids and as many numbers leave the GPU, and the next step begins before they are looked at."""
    prompts, options = [[5, 9, 400], [1] * 90, [7]], {"max_tokens": 12, "temperature": 0, "ignore_eos": True} | how
    expected = qwen("cpu").generate(prompts, logprobs=logprobs, **options)
    arrived, again, early = [], CapturedStep.again, []
    monkeypatch.setattr(step, "Arriving", lambda x: arrived.append(x.shape) or Arriving(x))
    monkeypatch.setattr(CapturedStep, "again", lambda self: early.append(1) or again(self))
    for written, right in zip(qwen("cuda").generate(prompts, logprobs=logprobs, **options), expected, strict=True):
        assert written.ids == right.ids
        for mine, theirs in zip(written.logprobs, right.logprobs, strict=True):
            assert mine.id == theirs.id
            assert [id for id, _ in mine.top] == [id for id, _ in theirs.top]
            assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
            assert [value for _, value in mine.top] == pytest.approx([value for _, value in theirs.top], abs=1e-4)
    assert set(arrived) == {(3, 1 + logprobs)}
    assert len(early) == 11


def test_a_prompt_is_cancelled_while_it_is_read(monkeypatch):
    monkeypatch.setitem(CHUNK, "cuda", 128)
    cancel = threading.Event()
    cancel.set()
    assert qwen("cuda").generate([5, 9], cancel=cancel).finish_reason == "cancelled"
    model, hidden = qwen("cuda"), Qwen3.forward
    cancel.clear()

    def read(*args):
        cancel.set()
        return hidden(model, *args)

    model.forward = read
    results = model.generate([[5] * 300, [7]], max_tokens=4, temperature=0, cancel=cancel)
    assert [(result.ids, result.finish_reason) for result in results] == [([], "cancelled")] * 2


def test_a_session_goes_on_where_it_was():
    written = []
    for device in ("cpu", "cuda"):
        session = qwen(device).session()
        first = session.generate([3, 1, 4, 1, 5], max_tokens=10, temperature=0, ignore_eos=True).ids
        second = session.generate([3, 1, 4, 1, 5, *first, 9], max_tokens=10, temperature=0, ignore_eos=True)
        third = session.generate([3, 1, 4, 1, 5, *first, 9, *second.ids, 2], max_tokens=40, temperature=0)
        written.append((first, second.ids, third.ids))
        # On a card memory is taken for what may come next, on the CPU address space for the whole context.
        assert session._cache.capacity == (512 if device == "cpu" else 67)
    assert written[0] == written[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_replayed_steps_equal_eager_ones(dtype):
    model = qwen("cuda", dtype)
    eager, recorded = model.new_cache(2, 100), model.new_cache(2, 100)
    prompt = Tensor(np.random.default_rng(1).integers(0, 500, (2, 20)))
    for cache in (eager, recorded):
        model.forward(prompt, cache)
    ids = Tensor(np.zeros((2, 1), np.int64)).to("cuda")
    recording = Recording(lambda: model.logits(model.forward(ids, recorded)), ids.device)
    for at in range(5):
        now = np.full((2, 1), at)
        expected = model.logits(model.forward(Tensor(now), eager))
        if at:
            ids.storage.set(now)
            assert recording.replay() is recording.result
        assert error(recording.result.float(), expected.float()) <= (1e-6 if dtype == "float32" else 2e-2)
    assert recorded.layers[1].held.tolist() == recorded.lengths.tolist() == eager.lengths.tolist() == [25, 25]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_in_windows_are_recorded(dtype):
    """While keys leave the windows of two of the three layers."""
    windows = {"use_sliding_window": True, "sliding_window": 22, "max_window_layers": 1}
    model = Qwen3(Qwen3Config.from_dict(QWEN | windows), VarBuilder.random(0, dtype, "cuda"))
    prompt = Tensor(np.random.default_rng(1).integers(0, 500, (2, 20)))
    eager, cache = model.new_cache(2, 60), model.new_cache(2, 60)
    for each in (eager, cache):
        model.forward(prompt, each)
    step = Decoder(model, cache)
    for at in range(6):
        expected = model.logits(model.forward(Tensor(np.full((2, 1), at)), eager)).float()
        found = np.stack(step([at, at], [[], []]))
        assert error(Tensor(found), expected) <= (1e-6 if dtype == "float32" else 2e-2)
    assert step.recordable


def test_what_cannot_be_recorded_is_named_and_leaves_the_card_usable():
    x = tl.ones((4, 4), device="cuda")
    with pytest.raises(tl.CaptureError, match="tolist"):
        Recording(lambda: (x + 1).tolist(), x.device)
    with pytest.raises(tl.CaptureError, match="matmul"):
        Recording(lambda: x @ x, x.device)

    def interrupted():
        x + 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Recording(interrupted, x.device)
    recording = Recording(lambda: x + 1, x.device)
    x[...] = 5.0
    assert recording.replay().tolist() == [[6.0] * 4] * 4


def whisper(device, dtype=None):
    return Whisper(WhisperConfig.from_dict(WHISPER), VarBuilder.random(0, dtype, device))


@pytest.mark.parametrize("dtype", NEAR)
def test_whisper_hears_and_writes_the_same(dtype):
    mel, steps = numbers(80, 3000), []
    for model in (whisper("cpu"), whisper("cuda", dtype)):
        sound = model.encode(mel)
        assert isinstance(sound[0], KVCache)
        session = DecoderSession(model.decoder, sound, rows=2)
        logits = [session.start([3, 5, 8], [0, 2])]
        session.select([0, 0])
        logits += [session.step([token, token + 1]).copy() for token in (9, 2, 6)]
        session.select([1, 0])
        logits += [session.step([4, 4]).copy()]
        session.select([1])
        logits += [session.step([token]).copy() for token in (7, 8)]
        weights, told = session.align([3, 5, 8, 9], [(0, 1), (1, 0)], 700)
        steps.append([*logits, weights, told])
    for found, expected in zip(steps[1], steps[0], strict=True):
        assert found.dtype == np.float32 or dtype != "float32"
        assert np.linalg.norm(found - expected) <= NEAR[dtype] * np.linalg.norm(expected)


def test_clap_embeds_the_same():
    from tests.models import tiny_clap

    sides = []
    for device in ("cpu", "cuda"):
        model = Clap(ClapConfig.from_dict(tiny_clap.config()), VarBuilder.random(0, device=device))
        sounds = model.audio_encoder(Tensor(numbers(3, 1, 201, 64)).to(device), [])
        ids, lengths = Tensor(np.array([[0, 7, 9, 2], [0, 5, 2, 1]])), Tensor(np.array([4, 3]))
        sides.append((sounds, model.text_encoder(ids.to(device), lengths.to(device))))
    for found, expected in zip(sides[1], sides[0], strict=True):
        assert error(found, expected) <= 5e-5


@pytest.mark.parametrize("kind", ["vit", "gated", "convnext"])
@pytest.mark.parametrize("dtype", NEAR)
def test_dinov3_sees_the_same(kind, dtype):
    from tests.models import tiny_dino

    model_class = find_class(tiny_dino.CONFIGS[kind]["model_type"])
    config = model_class.Config.from_dict(tiny_dino.CONFIGS[kind])
    pixels, sides = Tensor(numbers(3, 3, 32, 32)), []
    for device, stored in (("cpu", None), ("cuda", dtype)):
        model = model_class(config, VarBuilder.random(0, stored, device))
        sides.append(model(pixels.to(device))[0])
    assert error(sides[1].float(), sides[0]) <= NEAR[dtype]


def test_encoders_are_recorded_when_a_shape_comes_again():
    from tallow.runtime.encoding import _recorded, encode
    from tests.models import tiny_dino

    model_class = find_class(tiny_dino.CONFIGS["vit"]["model_type"])
    model = model_class(
        model_class.Config.from_dict(tiny_dino.CONFIGS["vit"]), VarBuilder.random(0, "bfloat16", "cuda")
    )
    for size in (32, 48, 32, 32, 48, 48):
        pixels = Tensor(numbers(2, 3, size, size, seed=size)).to("cuda")
        for x in (pixels, pixels * 2.0):
            assert error(encode(model, x), model(x)) <= 1e-6
    assert all(found is not None for found in _recorded[model]._known.values())
    sound = whisper("cuda", "float16")
    first, second = (sound.encode(numbers(80, 3000)) for _ in range(2))
    third, fourth = (sound.encode(numbers(80, 3000, seed=seed)) for seed in (0, 1))
    for a, b in zip(first, third, strict=True):
        assert error(a.view()[0], b.view()[0]) <= 1e-6
    assert error(second[0].view()[0], fourth[0].view()[0]) > 0.1
    assert len(_recorded) >= 2
    del model, sound, first, second, third, fourth


def test_a_model_moves_to_the_card():
    model = qwen("cpu").to("cuda")
    cache = model.new_cache(1, 20)
    assert error(model.forward(tl.asarray([[1, 2, 3]]), cache), qwen("cpu").forward(
        tl.asarray([[1, 2, 3]]), qwen("cpu").new_cache(1, 20))) <= 2e-5  # fmt: skip


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_quantised_models_say_nearly_the_same(quantize, dtype):
    ids, sides = Tensor(np.random.default_rng(0).integers(0, 500, (1, 40))), []
    config = Qwen3Config.from_dict(QWEN)
    for model in (
        qwen("cpu"),
        *(Qwen3(config, VarBuilder.random(0, dtype, kind, quantize=quantize)) for kind in ("cpu", "cuda")),
    ):
        cache = model.new_cache(1, 50)
        model.forward(ids[:, :30], cache)  # by a product of the widened matrix
        sides.append(model.logits(model.forward(ids[:, 30:], cache)).float().to("cpu"))
    assert error(sides[2], sides[0]) <= 1.3 * error(sides[1], sides[0]) + NEAR[dtype]
    assert model.blocks[0].mlp.down.weight.storage == {"int8": "int8", "int4": "q4_1"}[quantize]
    assert len(model.generate([3, 1, 4], max_tokens=12, temperature=0, ignore_eos=True).ids) == 12
