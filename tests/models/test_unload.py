"""What ``tl.unload`` does to each kind of model: to streams that are half read, and to calls in flight."""

import threading

import numpy as np
import pytest

import tallow as tl
from tallow.errors import ArgumentError
from tallow.runtime import resident
from tests.engine.small_model import small_model
from tests.models import tiny_clap, tiny_dino, tiny_whisper

PICTURE = np.zeros((32, 32, 3), np.uint8)
SPEECH = {"temperature": 0.0, "beam_size": 1, "language": "en", "logprob_threshold": None, "no_speech_threshold": None}


def noise(seconds, rate):
    return np.random.default_rng(0).normal(0, 0.1, seconds * rate).astype(np.float32)


@pytest.fixture(params=["whisper", "dinov3", "clap", "language model"])
def model(request, tmp_path):
    kind = request.param
    if kind == "language model":
        yield resident.keep(kind, kind, (), small_model)
    else:
        tiny = {"whisper": tiny_whisper, "dinov3": tiny_dino, "clap": tiny_clap}[kind]
        yield tl.load(tiny.write(tmp_path / "model"), device="cpu")
    tl.unload()


def calls(model):
    """The public methods of a model that compute, as short calls."""
    found = {
        "transcribe": lambda: model.transcribe(noise(2, 16_000), **SPEECH),
        "detect_language": lambda: model.detect_language(noise(2, 16_000)),
        "embed_audio": lambda: model.embed_audio(noise(2, 48_000)),
        "embed_text": lambda: model.embed_text(["rain", "wind"]),
        "classify": lambda: model.classify(noise(2, 48_000), ["rain", "wind"]),
        "features": lambda: model.features(PICTURE),
        "attention": lambda: model.attention(PICTURE),
        "generate": lambda: model.generate("the cat", max_tokens=2),
        "chat": lambda: model.chat("hello", max_tokens=2),
        "score": lambda: model.score("the cat sat"),
        "session": lambda: model.session().generate("the cat", max_tokens=2),
        "embed": lambda: model.embed("the cat" if hasattr(model, "generate") else PICTURE),
        "stream": lambda: list(model.stream([PICTURE])),
    }
    apart = {"session": "generate", "features": "attention"}  # names that mean something else in another kind
    return {name: call for name, call in found.items() if hasattr(model, apart.get(name, name))}


def half_read(model):
    """A stream of which something has been read, or None where there is no stream."""
    if hasattr(model, "transcribe"):
        stream = model.transcribe(noise(90, 16_000), stream=True, without_timestamps=True, **SPEECH)
    elif hasattr(model, "generate"):
        stream = model.generate("the cat", max_tokens=200, ignore_eos=True, stream=True)
    elif hasattr(model, "stream"):
        stream = model.stream([PICTURE] * 30, batch_size=2)
    else:
        return None
    next(stream)
    return stream


def ends(act):
    """Whether something ends in a while, in a thread of its own."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_every_call_on_an_unloaded_model_says_so(model):
    several = calls(model)
    for call in several.values():
        call()
    tl.unload(model)
    assert len(several) >= 2
    for name, call in several.items():
        with pytest.raises(ArgumentError, match=r"unloaded; load it again with tl\.load"):
            pytest.fail(f"{name} gave {call()!r}")


def test_a_stream_that_is_half_read_holds_up_no_unload(model):
    stream = half_read(model)
    if stream is None:
        assert not hasattr(model, "stream")
        return
    assert ends(lambda: tl.unload(model))
    with pytest.raises(ArgumentError, match="unloaded"):
        list(stream)
    assert list(stream) == []


def test_a_call_in_flight_ends_before_the_model_goes(model, monkeypatch):
    """A whole call, not only the batch or the window at which it is."""
    method = "transcribe" if hasattr(model, "transcribe") else "embed_text" if hasattr(model, "embed_text") else "embed"
    arguments = {
        "transcribe": lambda: model.transcribe(noise(65, 16_000), without_timestamps=True, **SPEECH).duration,
        "embed_text": lambda: model.embed_text(["a", "b", "c"], batch_size=1).shape[0],
        "embed": lambda: model.embed(
            ["a", "b", "c"] if hasattr(model, "generate") else [PICTURE] * 3, batch_size=1).shape[0],
    }  # fmt: skip
    began, go, entered = threading.Event(), threading.Event(), resident.use.__exit__
    results = []

    def leave(self, *error):  # at the end of the first part, or of all
        if threading.current_thread().name == "call":
            began.set()
            go.wait(10)
        entered(self, *error)

    monkeypatch.setattr(resident.use, "__exit__", leave)
    caller = threading.Thread(target=lambda: results.append(arguments[method]()), name="call")
    caller.start()
    assert began.wait(10)
    unloading = threading.Thread(target=lambda: tl.unload(model))
    unloading.start()
    while tl.resident():
        threading.Event().wait(0.001)
    go.set()
    caller.join(10)
    unloading.join(10)
    assert results == [65 if method == "transcribe" else 3]
    assert vars(model) == {}


def test_a_recording_is_closed_when_its_model_goes(tmp_path, monkeypatch):
    closed = []
    model = tl.load(tiny_whisper.write(tmp_path / "model"), device="cpu")
    stream = model.transcribe(noise(90, 16_000), stream=True, without_timestamps=True, **SPEECH)
    monkeypatch.setattr(stream._windows, "close", lambda: closed.append(True))
    next(stream)
    tl.unload(model)
    with pytest.raises(ArgumentError):
        list(stream)
    assert closed == [True]
