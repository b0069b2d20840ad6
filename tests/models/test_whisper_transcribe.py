"""The sliding window, the fallback and the prompts, with a model that says what the test writes."""

from types import SimpleNamespace

import numpy as np
import pytest

from tallow.errors import ArgumentError
from tallow.models.whisper.options import Options
from tallow.models.whisper.rules import Rules
from tallow.models.whisper.transcribe import Transcription, compression_ratio
from tests.models.whisper_kit import ScriptedDecoder, ids, tokens

VOCABULARY = tokens().timestamp_begin + 1501
END = tokens().end
SILENT = -1.5


class Sound:
    """A recording of so many seconds, loud except in some stretches; it writes down which windows are asked for."""

    def __init__(self, seconds, silent=()):
        self.frames, self.silent, self.asked = round(seconds * 100), silent, []
        self.duration = seconds

    def window(self, start):
        self.asked.append(start)
        mel = np.full((4, 3000), 0.5, np.float32)
        for a, b in self.silent:
            mel[:, max(0, a * 100 - start) : max(0, b * 100 - start)] = SILENT
        self.mel = mel
        return mel, max(0, min(3000, self.frames - start))

    def close(self):
        self.closed = True


class Model:
    """Says, window by window, what the script has; a tuple of scripts is what it says at one temperature after another.

    Args:
        script: for each window the items of ``kit.ids``, or a dict with ``say``, ``no_speech`` and ``confidence``;
            after its end nothing is said.
        languages: probabilities that it finds.
    """

    def __init__(self, *script, languages=None, multilingual=True, context=448):
        self.script = list(script)
        self.tokens = tokens(multilingual)
        self.config = SimpleNamespace(max_target_positions=context)
        self.generation = SimpleNamespace(alignment_heads=((0, 0),))
        self.languages = languages or {"de": 0.75, "en": 0.25}
        self.prompts, self.mels, self.detections = [], [], 0

    def rules(self, options):
        return Rules(self.tokens, (), (), timestamps=not options.without_timestamps, max_initial_timestamp=None)

    def encode(self, mel):
        self.mels.append(mel.copy())
        return self.script.pop(0) if self.script else [0.0]

    def language_probabilities(self, sound):
        self.detections += 1
        return self.languages

    def session(self, sound, rows=1):
        tries = list(sound) if isinstance(sound, tuple) else [sound]
        model = self

        class Session:
            def start(self, prompt, positions):
                model.prompts.append(list(prompt))
                found = tries.pop(0) if len(tries) > 1 else tries[0]
                found = found if isinstance(found, dict) else {"say": found}
                chance = found.get("no_speech", 0.0)
                confidence = found.get("confidence", 30.0)
                script = [*ids(*found["say"]), END]
                self.inner = ScriptedDecoder(script, VOCABULARY, (tokens().no_speech, chance), confidence)
                return self.inner.start(prompt, positions)

            def step(self, ids):
                return self.inner.step(ids)

            def select(self, rows):
                pass

            def align(self, read, heads, positions):
                """Every token is spoken for half a second, from the beginning of the window on."""
                weights = np.full((1, len(read), positions), 1e-4, np.float32)
                first = read.index(tokens().no_timestamps)
                for i in range(len(read) - first - 1):
                    weights[0, first + i, 25 * i : 25 * i + 25] = 0.04
                logits = np.zeros((len(read), VOCABULARY), np.float32)
                for i in range(len(read) - 1):
                    logits[i, read[i + 1]] = sound.get("word_confidence", 20) if isinstance(sound, dict) else 20
                return weights, logits

        return Session()


def run(model, sound, **options):
    options = {"language": "en", "beam_size": 1, **options}
    return Transcription(model, sound, Options(**options)).result()


def spans(transcript):
    return [(round(s.start, 2), round(s.end, 2), s.text) for s in transcript.segments]


def test_windows_follow_the_timestamps_and_segments_are_numbered_on():
    sound = Sound(60)
    model = Model([0.0, "hello", 4.0, 4.0, "world", 20.0, 20.0, "yes"], [0.0, "yes", 10.0], [0.0, "yes", 5.0])
    found = run(model, sound)
    assert spans(found) == [(0, 4, " hello"), (4, 20, " world"), (20, 30, " yes"), (50, 55, " yes")]
    assert [s.id for s in found.segments] == [0, 1, 2, 3]
    assert sound.asked == [0, 2000, 5000, 6000]
    assert found.text == "hello world yes yes"
    assert found.duration == 60
    assert (found.language, found.language_probability) == ("en", 1.0)


@pytest.mark.parametrize("words", [False, True])
def test_no_time_lies_behind_the_end_of_the_recording(words):
    script = [0.0, "hello", 2.0, 2.0, "world", 29.0]
    found = run(Model(script), Sound(3.5), word_timestamps=words)
    assert found.text == "hello world"
    assert found.segments[-1].end <= found.duration == 3.5
    assert all(word.end <= 3.5 for segment in found.segments for word in segment.words)
    found = run(Model([0.0, "hello", 2.0, 2.0, "world", 29.0]), Sound(3.5), clip_timestamps="0,2.5")
    assert spans(found) == [(0, 2, " hello"), (2, 2.5, " world")]
    for format in ("srt", "vtt"):
        assert "00:00:02" in found.render(format)
        assert "00:00:29" not in found.render(format)


def test_segments_come_one_by_one_before_the_recording_has_been_read():
    sound = Sound(600)
    model = Model([0.0, "hello", 30.0], [0.0, "world", 30.0])
    stream = Transcription(model, sound, Options(language="en", beam_size=1))
    assert next(stream).text == " hello"
    assert sound.asked == [0]
    assert next(stream).text == " world"
    assert sound.asked == [0, 3000]
    stream.close()
    assert sound.closed
    assert list(stream) == []


def test_a_stream_that_is_never_read_can_be_closed():
    sound = Sound(600)
    Transcription(Model(), sound, Options(language="en")).close()
    assert sound.closed
    assert sound.asked == []


def test_the_recording_is_closed_at_its_end():
    sound = Sound(10)
    run(Model([0.0, "hello", 5.0]), sound)
    assert sound.closed


def test_an_empty_recording_has_no_words():
    found = run(Model(), Sound(0), language=None)
    assert (found.text, found.segments, found.duration) == ("", [], 0)
    assert found.language_probability == 0.0


def test_silence_is_not_even_decoded():
    sound, model = Sound(70, silent=[(0, 35)]), Model([0.0, "hello", 5.0])
    found = run(model, sound, language=None)
    assert spans(found) == [(30, 35, " hello")] or spans(found) == [(60, 65, " hello")]
    assert model.detections == 1
    assert found.language == "de"


def test_a_whole_silent_recording_has_no_words():
    found = run(Model(), Sound(45, silent=[(0, 60)]), language=None)
    assert (found.text, found.language_probability, found.duration) == ("", 0.0, 45)


def test_a_window_in_which_nobody_speaks_is_skipped():
    model = Model({"say": [0.0, "hello", 5.0], "no_speech": 0.9, "confidence": 1.0}, [0.0, "world", 5.0])
    found = run(model, Sound(40), temperature=0.0)
    assert spans(found) == [(30, 35, " world")]


def test_confident_text_counts_although_the_model_thinks_that_nobody_speaks():
    confident = {"say": [0.0, "hello", 5.0], "no_speech": 0.9}
    assert spans(run(Model(confident), Sound(10))) == [(0, 5, " hello")]
    assert run(Model(confident), Sound(10), logprob_threshold=None).text == ""


def test_text_that_repeats_itself_is_tried_again_at_a_higher_temperature():
    loop = [0.0, *["hello", "world"] * 40, 20.0]
    model = Model((loop, [0.0, "hello", 20.0]))
    found = run(model, Sound(30), temperature=(0.0, 0.4, 0.8))
    assert spans(found) == [(0, 20, " hello")]
    assert found.segments[0].temperature == 0.4
    assert len(model.prompts) == 2


def test_unlikely_text_is_tried_again_and_the_last_attempt_counts():
    unsure = {"say": [0.0, "hello", 5.0], "confidence": 0.0}
    model = Model(unsure)
    found = run(model, Sound(10), temperature=(0.0, 0.5, 1.0), logprob_threshold=-1.0)
    assert len(model.prompts) == 3
    assert all(s.temperature == 1.0 for s in found.segments)


def test_unlikely_text_in_silence_is_not_tried_again():
    model = Model({"say": [0.0, "hello", 5.0], "confidence": 0.0, "no_speech": 0.95})
    assert run(model, Sound(10)).text == ""
    assert len(model.prompts) == 1


def test_one_temperature_means_no_fallback():
    model = Model({"say": [0.0, "hello", 5.0], "confidence": 8.0})
    run(model, Sound(10), temperature=0.0, logprob_threshold=-0.1)
    assert len(model.prompts) == 1


def test_each_window_is_told_what_went_before():
    model = Model([0.0, "hello", 30.0], [0.0, "world", 30.0], [0.0, "yes", 10.0])
    run(model, Sound(70), initial_prompt="yes")
    start = tokens().start_sequence("en", "transcribe", timestamps=True)
    previous = tokens().start_of_previous
    assert model.prompts[0] == [previous, *ids("yes"), *start]
    assert model.prompts[1] == [previous, *ids("yes", 0.0, "hello", 30.0), *start]
    assert model.prompts[2] == [previous, *ids("yes", 0.0, "hello", 30.0, 0.0, "world", 30.0), *start]


def test_without_conditioning_only_the_first_window_is_told_the_initial_prompt():
    model = Model([0.0, "hello", 30.0], [0.0, "world", 30.0])
    run(model, Sound(60), initial_prompt="yes", condition_on_previous_text=False)
    assert [tokens().start_of_previous in prompt for prompt in model.prompts] == [True, False]


def test_text_of_a_high_temperature_is_forgotten():
    loop = [0.0, *["hello", "world"] * 40, 20.0]
    model = Model((loop, [0.0, "hello", 30.0]), [0.0, "world", 30.0])
    run(model, Sound(60), temperature=(0.0, 0.8))
    assert tokens().start_of_previous not in model.prompts[-1]


def test_hotwords_are_told_to_every_window_before_what_went_before():
    model = Model([0.0, "hello", 30.0], [0.0, "world", 30.0])
    run(model, Sound(60), hotwords="world", condition_on_previous_text=False)
    for prompt in model.prompts:
        assert prompt[:2] == [tokens().start_of_previous, *ids("world")]
    model = Model([0.0, "hello", 30.0], [0.0, "world", 30.0])
    run(model, Sound(60), hotwords="world")
    assert model.prompts[1][:5] == [tokens().start_of_previous, *ids("world", 0.0, "hello", 30.0)]


@pytest.mark.parametrize("words", [0, 5, 300])
def test_prompts_leave_half_of_the_context_for_the_text(words):
    model = Model([0.0, "hello", 5.0])
    run(model, Sound(10), initial_prompt="hello " * 300, hotwords="world " * words or None)
    prompt = model.prompts[0]
    assert len(prompt) == 1 + 223 + 3
    assert prompt[1 : 1 + min(words, 223)] == ids("world") * min(words, 223)


def test_language_and_task_open_the_transcript():
    model = Model([0.0, "hello", 5.0])
    found = run(model, Sound(10), language=None, task="translate")
    assert model.prompts[0] == ids("<|startoftranscript|>", "<|de|>", "<|translate|>")
    assert (found.language, found.language_probability) == ("de", 0.75)


def test_an_english_model_opens_with_the_start_alone():
    model = Model(["hello"], multilingual=False)
    found = run(model, Sound(10), language=None, without_timestamps=True)
    assert model.prompts[0] == ids("<|startoftranscript|>", "<|notimestamps|>")
    assert (found.text, found.language, found.language_probability) == ("hello", "en", 1.0)
    assert model.detections == 0


def test_the_language_is_found_once():
    model = Model([0.0, "hello", 30.0], [0.0, "world", 30.0])
    run(model, Sound(60), language=None)
    assert model.detections == 1


def test_clips_are_transcribed_and_nothing_else():
    sound = Sound(120)
    model = Model([0.0, "hello", 4.0], [0.0, "world", 30.0], [0.0, "yes", 9.0])
    found = run(model, sound, clip_timestamps=[10, 15, 50])
    assert sound.asked[:3] == [1000, 5000, 8000]
    assert spans(found)[:2] == [(10, 14, " hello"), (50, 80, " world")]
    first = model.mels[0]
    np.testing.assert_allclose(first[:, :500], 0.5)
    np.testing.assert_allclose(first[:, 500:], 0.5 - 2.0)


def test_a_window_whose_timestamps_do_not_move_on_does_not_stop_the_recording():
    class Stuck(Model):
        def rules(self, options):
            return SimpleNamespace(apply=lambda logits, histories: None)

    sound = Sound(60)
    run(Stuck([0.0, 0.0, "hello"], [0.0, "yes", 5.0]), sound)
    assert sound.asked == [0, 3000, 6000]


def test_a_remainder_too_short_for_a_word_is_left():
    sound = Sound(30.05)
    run(Model([0.0, "hello", 30.0]), sound)
    assert sound.asked == [0, 3000]


def test_progress_reaches_the_end():
    seen = []
    sound = Sound(50)
    model = Model([0.0, "hello", 20.0, 20.0, "world"], [0.0, "world", 30.0])
    Transcription(model, sound, Options(language="en", beam_size=1), lambda *at: seen.append(at)).result()
    assert seen == [(20.0, 50), (50.0, 50)]


def test_words_are_timed_and_the_next_window_begins_after_the_last_one():
    sound = Sound(60)
    model = Model([0.0, "hello", "world", 2.0, 2.0, "yes"], [0.0, "yes", 1.0])
    found = run(model, sound, word_timestamps=True)
    words = found.segments[0].words
    assert [w.text for w in words] == [" hello", " world"]
    assert [w.start for w in words] == pytest.approx([0, 0.5], abs=0.1)
    assert [w.end for w in words] == pytest.approx([0.5, 1.0], abs=0.1)
    assert all(w.probability > 0.9 for s in found.segments for w in s.words)
    assert sound.asked[1] == round(found.segments[0].words[-1].end * 100)


def test_improbable_words_after_silence_are_left_out():
    unlikely = {"say": [0.0, "hello", 1.0], "word_confidence": -5}
    kept = run(Model(unlikely), Sound(20), word_timestamps=True)
    assert kept.text == "hello"
    left_out = run(Model(unlikely), Sound(20), word_timestamps=True, hallucination_silence_threshold=1.0)
    assert left_out.text == ""


def test_compression_ratio():
    assert compression_ratio("") == 0
    assert compression_ratio("a man, a plan, a canal") < 1.5
    assert compression_ratio("hello world " * 50) > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "klingon"}, "unknown language 'klingon'"),
        ({"language": "fr"}, "does not know French"),
        ({"task": "sing"}, "unknown task 'sing'"),
        ({"language": 5}, "language must be a code or an English name, or None; found 5"),
        ({"beam_size": 0}, "beam_size must be a whole number from 1 up; found 0"),
        ({"beam_size": 2.5}, "beam_size"),
        ({"beam_size": None}, "beam_size"),
        ({"best_of": 0}, "best_of"),
        ({"patience": 0}, "patience"),
        ({"patience": float("inf")}, "patience"),
        ({"length_penalty": 2}, "length_penalty"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": ()}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"temperature": [0, None]}, "temperature"),
        ({"logprob_threshold": "-1"}, "logprob_threshold must be a number, or None; found '-1'"),
        ({"initial_prompt": [1, 2]}, "initial_prompt must be text, or None"),
        ({"hotwords": ["harbour"]}, "hotwords must be text, or None"),
        ({"suppress_tokens": "-1"}, "suppress_tokens"),
        ({"suppress_tokens": None}, "suppress_tokens"),
        ({"suppress_tokens": [-7]}, "suppress_tokens"),
        ({"max_initial_timestamp": -1}, "max_initial_timestamp"),
        ({"append_punctuations": None}, "append_punctuations must be text"),
        ({"seed": 1.5}, "seed"),
        ({"clip_timestamps": "5,x"}, "clip_timestamps"),
        ({"clip_timestamps": [5, 3]}, "clip_timestamps"),
        ({"clip_timestamps": [-1]}, "clip_timestamps"),
        ({"clip_timestamps": [0, 5, 4, 8]}, "clip_timestamps"),
        ({"clip_timestamps": [float("nan")]}, "clip_timestamps"),
        ({"hallucination_silence_threshold": 2}, "needs word_timestamps"),
        ({"hallucination_silence_threshold": -2, "word_timestamps": True}, "hallucination_silence_threshold"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(options, message):
    model = Model()
    with pytest.raises(ArgumentError, match=message):
        run(model, Sound(10), **options)
    assert model.prompts == []


@pytest.mark.parametrize(
    ("options", "message"), [({"language": "de"}, "English only"), ({"task": "translate"}, "cannot translate")]
)
def test_an_english_model_is_asked_for_english_only(options, message):
    with pytest.raises(ArgumentError, match=message):
        run(Model(multilingual=False), Sound(10), **options)


def test_settings_may_be_numpys_numbers():
    options = Options(beam_size=np.int64(2), temperature=np.float32(0.5), clip_timestamps=np.array([0.5, 2]))
    assert options.temperatures == (0.5,)
    assert Options(temperature=np.array([0.0, 0.5])).temperatures == (0.0, 0.5)
    assert options.clips() == [(0.5, 2.0)]


def test_clips_may_be_written_as_text():
    assert Options(clip_timestamps="").clips() == [(0.0, float("inf"))]
    assert Options(clip_timestamps="1.5,2,3").clips() == [(1.5, 2.0), (3.0, float("inf"))]
