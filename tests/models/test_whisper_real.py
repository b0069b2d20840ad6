"""Real weights on real speech: the very tokens that Transformers writes (tools/make_whisper_golden.py)."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

import tallow as tl
from tests import recordings
from tests.models import real_weights

pytestmark = pytest.mark.real
GOLDEN = json.loads((Path(__file__).parent / "golden" / "whisper.json").read_text())
GREEDY = {"beam_size": 1, "temperature": 0.0, "language": "en", "condition_on_previous_text": False}
EXACT = {**GREEDY, "compression_ratio_threshold": None, "logprob_threshold": None, "no_speech_threshold": None}


@pytest.fixture(scope="module", params=["tiny.en", "base"])
def speech(request, tmp_path_factory):
    """A model in float32, and what Transformers writes with it."""
    scratch = tmp_path_factory.mktemp("base")
    folder = real_weights.tiny_en() if request.param == "tiny.en" else real_weights.base(scratch)
    model = tl.load(folder, device="cpu", dtype="float32")
    yield model, GOLDEN[request.param]
    tl.unload(model)


@pytest.fixture(scope="module")
def tiny():
    model = tl.load(real_weights.tiny_en(), device="cpu")
    yield model
    tl.unload(model)


def written(transcript):
    return [id for segment in transcript.segments for id in segment.tokens]


@pytest.mark.parametrize("recording", [recordings.harbour, recordings.jfk])
@pytest.mark.parametrize("timestamps", [True, False])
def test_one_window(speech, recording, timestamps):
    model, golden = speech
    key = recording.__name__ + ("" if timestamps else "_without_timestamps")
    found = model.transcribe(recording(), **EXACT, without_timestamps=not timestamps)
    assert written(found) == golden[key]


@pytest.mark.slow
def test_a_long_recording(speech):
    model, golden = speech
    found = model.transcribe(recordings.long(), **EXACT)
    ours = [[round(s.start, 2), round(s.end, 2), s.tokens] for s in found.segments]
    # Transformers keeps the timestamp that begins the next segment with a segment that does not end its window.
    theirs = [[a, b, ids[:-1] if ids[-2] >= model.tokens.timestamp_begin else ids] for a, b, ids in golden["long"]]
    assert [s[:2] for s in ours] == [s[:2] for s in theirs]
    assert [s[2] for s in ours] == [s[2] for s in theirs]


@pytest.mark.slow
def test_beams_and_samples_write_sensible_text(tiny):
    for options in ({"beam_size": 5, "temperature": 0.0}, {"temperature": 0.2, "seed": 1}):
        text = tiny.transcribe(recordings.harbour(), language="en", **options).text.lower()
        assert "they burned with a steady flame" in text
        assert "it writes down what it hears" in text


@pytest.mark.slow
def test_a_seed_fixes_a_sample(tiny):
    texts = [tiny.transcribe(recordings.harbour(), temperature=1.0, best_of=2, seed=s).text for s in (3, 3, 4, 5)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_words_have_their_times(tiny):
    found = tiny.transcribe(recordings.harbour(), **GREEDY, word_timestamps=True)
    words = [word for segment in found.segments for word in segment.words]
    assert "".join(word.text for word in words).strip() == found.text
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= found.duration
    at = {word.text.strip(" .,").lower(): word.start for word in words}
    # when flite says them
    assert at["candles"] == pytest.approx(2.9, abs=0.3)
    assert at["steady"] == pytest.approx(6.9, abs=0.3)
    assert at["computer"] == pytest.approx(12.2, abs=0.4)


@pytest.mark.parametrize("kind", ["nothing", "zeros", "faint noise"])
def test_nothing_is_invented_for_silence(tiny, kind):
    rng = np.random.default_rng(0)
    sound = {
        "nothing": np.zeros(0, np.float32),
        "zeros": np.zeros(40 * 16_000, np.float32),
        "faint noise": rng.normal(0, 1e-5, 35 * 16_000).astype(np.float32),
    }[kind]
    found = tiny.transcribe(sound)
    assert (found.text, found.segments) == ("", [])
    assert found.duration == pytest.approx(len(sound) / 16_000)


@pytest.mark.slow
def test_prompts_and_hotwords_change_the_spelling(tiny):
    plain = tiny.transcribe(recordings.harbour(), **GREEDY).text
    assert "harbor " in plain
    for hint in ({"hotwords": "harbour"}, {"initial_prompt": "The colours of the harbour."}):
        assert "harbour " in tiny.transcribe(recordings.harbour(), **GREEDY, **hint).text


def test_clips(tiny):
    found = tiny.transcribe(recordings.long(), **GREEDY, clip_timestamps=[14.7, 22.6])
    assert found.text.startswith("Before there was")
    assert found.text.endswith("steady flame.")
    assert all(14.5 <= s.start < s.end <= 22.7 for s in found.segments)


@pytest.mark.slow
def test_one_model_serves_threads_at_once(tiny):
    sounds = [recordings.harbour(), recordings.harbour()[: 4 * 16_000], recordings.long()[: 40 * 16_000]]
    alone = [tiny.transcribe(sound, **GREEDY, word_timestamps=True) for sound in sounds]
    together = [None] * len(sounds)

    def work(i):
        together[i] = tiny.transcribe(sounds[i], **GREEDY, word_timestamps=True)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(sounds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


@pytest.mark.slow
def test_samples_of_another_rate_and_bytes(tiny):
    data = (recordings.ROOT / "examples" / "harbour.flac").read_bytes()
    expected = tiny.transcribe(recordings.harbour(), **GREEDY).text
    assert tiny.transcribe(data, **GREEDY).text == expected
    doubled = np.repeat(recordings.harbour(), 2)
    assert "steady flame" in tiny.transcribe(np.stack([doubled, doubled]), sampling_rate=32_000, **GREEDY).text


def test_the_language_is_detected(speech):
    model, _ = speech
    found = model.detect_language(recordings.harbour())
    assert next(iter(found)) == "en"
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert len(found) == (99 if model.tokens.multilingual else 1)
    if model.tokens.multilingual:
        heard = model.transcribe(recordings.harbour(), beam_size=1)
        assert (heard.language, heard.language_probability) == ("en", pytest.approx(found["en"], abs=1e-5))


def test_int8_writes_nearly_the_same():
    folder = real_weights.tiny_en()
    model = tl.load(folder, device="cpu", quantize="int8")
    text = model.transcribe(recordings.harbour(), **GREEDY).text
    assert "burned with a steady flame" in text
    tl.unload(model)
