"""Whisper from a checkpoint folder to a transcript, with random weights: everything but the sense of the words."""

import gc
import json
import shutil
import threading
import weakref

import numpy as np
import pytest

import tallow as tl
from tallow.errors import ArgumentError, MediaError, ModelNotFoundError, WeightsError
from tallow.media.audio import AudioReader
from tallow.models.whisper import Transcription, Whisper, WhisperConfig
from tallow.weights.safetensors import open_safetensors, save_safetensors
from tallow.weights.var_builder import VarBuilder
from tests.models import tiny_whisper

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_whisper.write(tmp_path_factory.mktemp("whisper") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    yield tl.load(folder, device="cpu")
    tl.unload()


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def load(folder):
    """What a checkpoint writes."""
    model = tl.load(folder, device="cpu")
    return model.transcribe(noise(3), temperature=0.0, beam_size=1, language="en", logprob_threshold=None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beam_size": 3, "patience": 2.0, "length_penalty": 0.5, "temperature": 0.0},
        {"temperature": 0.7, "best_of": 3},
        {"word_timestamps": True, "temperature": 0.0, "hallucination_silence_threshold": 2.0},
        {"without_timestamps": True, "word_timestamps": True, "beam_size": 1},
        {"task": "translate", "language": "german", "initial_prompt": "abc", "hotwords": "xyz"},
        {"max_initial_timestamp": None, "suppress_tokens": (), "suppress_blank": False},
        {"clip_timestamps": "1,3,5"},
    ],
)
def test_a_transcript_is_in_order_whatever_the_settings(model, options):
    found = model.transcribe(noise(40), logprob_threshold=None, no_speech_threshold=None, **options)
    assert found.duration == pytest.approx(40)
    assert [s.id for s in found.segments] == list(range(len(found.segments)))
    assert found.text == "".join(s.text for s in found.segments).strip()
    for segment in found.segments:
        assert 0 <= segment.start <= segment.end <= 70
        assert segment.text.strip()
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert all(0 <= word.probability <= 1 for word in segment.words)
        if options.get("word_timestamps") and "\ufffd" not in segment.text:  # half a character is in no segment
            assert "".join(word.text for word in segment.words).strip() == segment.text.strip()


def test_the_same_twice_and_from_several_threads(model):
    sounds = [noise(12, 1), noise(35, 2), noise(5, 3)]
    options = {"logprob_threshold": None, "word_timestamps": True, "beam_size": 2, "temperature": 0.0}
    alone = [model.transcribe(sound, **options) for sound in sounds]
    assert [model.transcribe(sound, **options) for sound in sounds] == alone
    together = [None] * len(sounds)

    def work(i):
        together[i] = model.transcribe(sounds[i], **options)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(sounds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_stream_gives_the_segments_of_the_transcript(model):
    options = {"logprob_threshold": None, "temperature": 0.0, "beam_size": 1, "language": "en"}
    whole = model.transcribe(noise(40), **options)
    stream = model.transcribe(noise(40), stream=True, **options)
    assert isinstance(stream, Transcription)
    assert list(stream) == whole.segments
    assert (stream.language, stream.duration) == ("en", whole.duration)


def test_an_open_reader_is_read_and_closed(model):
    options = {"logprob_threshold": None, "temperature": 0.0, "beam_size": 1, "language": "en"}
    reader = AudioReader(noise(5), RATE)
    assert model.transcribe(reader, **options) == model.transcribe(noise(5), **options)
    assert list(reader) == []


def test_samples_at_another_rate(model):
    samples = np.repeat(noise(4), 3)
    assert model.transcribe(samples, sampling_rate=3 * RATE).duration == pytest.approx(4, abs=0.01)
    with pytest.raises(MediaError, match="sampling_rate"):
        model.transcribe(b"RIFF", sampling_rate=8000)


def test_languages_and_their_probabilities(model):
    found = model.detect_language(noise(3))
    assert set(found) == {"en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt"}
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    heard = model.transcribe(noise(3))
    assert (heard.language, heard.language_probability) == next(iter(found.items()))


def test_an_english_model(tmp_path):
    model = tl.load(tiny_whisper.write(tmp_path / "tiny.en", multilingual=False), device="cpu")
    assert model.detect_language(noise(1)) == {"en": 1.0}
    assert model.transcribe(noise(1)).language == "en"
    with pytest.raises(ArgumentError, match="English only"):
        model.transcribe(noise(1), language="de")


def test_shards_and_half_precision_say_the_same(folder, tmp_path):
    expected = load(folder)
    half = tiny_whisper.write(tmp_path / "half", dtype=np.float16)
    assert load(half).text != ""
    shards = tmp_path / "shards"
    shutil.copytree(folder, shards)
    (shards / "model.safetensors").unlink()
    tensors = tiny_whisper.weights()
    index = {}
    for i, names in enumerate((list(tensors)[::2], list(tensors)[1::2])):
        save_safetensors({name: tensors[name] for name in names}, shards / f"model-{i}.safetensors")
        index |= dict.fromkeys(names, f"model-{i}.safetensors")
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert load(shards) == expected


def test_vocabulary_and_merges_instead_of_a_tokenizer(folder, tmp_path):
    expected = load(folder)
    other = shutil.copytree(folder, tmp_path / "merges")
    tiny_whisper.tokenizer().model.save(str(other))
    (other / "tokenizer.json").unlink()
    added = {token: 256 + i for i, token in enumerate(tiny_whisper.SPECIAL)}
    (other / "added_tokens.json").write_text(json.dumps(added))
    assert load(other) == expected


def test_no_tokenizer_at_all(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "bare")
    (other / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
        tl.load(other, device="cpu")


def test_without_a_generation_config_the_symbols_nobody_speaks_are_suppressed(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "plain")
    (other / "generation_config.json").unlink()
    model = tl.load(other, device="cpu")
    assert not model.tokens.multilingual, "so few tokens are an English model's"
    assert model.generation.alignment_heads == ((1, 0), (1, 1))
    text = model.transcribe(noise(5), temperature=0.0, logprob_threshold=None, beam_size=1).text
    assert not set('"#()*+/:;<=>@[\\]^_`{|}~') & set(text)


def test_suppressed_tokens_are_not_written(folder, tmp_path):
    plain = load(folder)
    common = max(set(plain.segments[0].tokens), key=lambda id: plain.segments[0].tokens.count(id) * (id < 256))
    other = tiny_whisper.write(
        tmp_path / "other", generation={"suppress_tokens": [common], "begin_suppress_tokens": []}
    )
    assert common not in load(other).segments[0].tokens
    model = tl.load(folder, device="cpu")
    found = model.transcribe(
        noise(3), suppress_tokens=(common,), temperature=0.0, logprob_threshold=None, language="en"
    )
    assert all(common not in segment.tokens for segment in found.segments)
    with pytest.raises(ArgumentError, match="no token 1000000; the model has"):
        model.transcribe(noise(3), suppress_tokens=(1_000_000,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 33}, "does not divide"),
        ({"decoder_layers": 3}, r"layers\.2"),
        ({"encoder_ffn_dim": 65}, "fc1"),
        ({"vocab_size": 300}, "tokens"),
        ({"activation_function": "relu"}, "gelu"),
        ({"scale_embedding": True}, "scale_embedding"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(WeightsError, match=message):
        tl.load(tiny_whisper.write(tmp_path / "wrong", **change), device="cpu")


@pytest.mark.parametrize(
    "generation",
    [
        {"suppress_tokens": [10**6]},
        {"suppress_tokens": "all"},
        {"begin_suppress_tokens": [-1]},
        {"alignment_heads": []},
        {"alignment_heads": [[0, 2]]},
        {"alignment_heads": [[0, 1, 2]]},
        {"alignment_heads": [["0", 1]]},
        {"alignment_heads": 7},
    ],
)
def test_a_generation_config_that_does_not_fit_is_refused(tmp_path, generation):
    with pytest.raises(WeightsError):
        tl.load(tiny_whisper.write(tmp_path / "wrong", generation=generation), device="cpu")


@pytest.mark.parametrize("width", ["32", -32, 0, 10**9, 32.0, None, True])
def test_a_size_that_is_none_is_refused(width):
    with pytest.raises(WeightsError, match="d_model"):
        WhisperConfig.from_dict(tiny_whisper.SIZES | {"d_model": width})


def test_a_config_without_a_size_is_refused():
    sizes = {name: value for name, value in tiny_whisper.SIZES.items() if name != "decoder_layers"}
    with pytest.raises(WeightsError, match="lacks decoder_layers"):
        WhisperConfig.from_dict(sizes)


def test_a_model_without_a_tokenizer_cannot_write(folder):
    bare = Whisper(WhisperConfig.from_dict(tiny_whisper.SIZES), VarBuilder(open_safetensors(folder)))
    with pytest.raises(WeightsError, match="without a tokenizer"):
        bare.transcribe(noise(1))


def test_an_unloaded_model_is_not_used(tmp_path):
    model = tl.load(tiny_whisper.write(tmp_path / "gone"), device="cpu")
    tl.unload(model)
    with pytest.raises(ArgumentError, match="unloaded"):
        model.transcribe(noise(1))


def test_the_tree_of_modules(model):
    text = repr(model)
    for part in ("Encoder", "Decoder", "CrossAttention", "(qkv): FusedLinear(32, 96, float32)"):
        assert part in text
    assert model.parameter_count() > 100_000


def test_a_window_leaves_no_memory_behind(model):
    """A cycle of references would keep each window's keys and values until the collector comes."""
    config = model.config
    sound = model.encode(np.zeros((config.num_mel_bins, 2 * config.max_source_positions), np.float32))
    session = model.session(sound)
    session.start([1, 2], [0])
    for id in (3, 4, 5):
        session.step([id])
    arrays = [weakref.ref(cache.keys.storage) for cache in (*sound, *session._text)]
    gc.collect()
    gc.disable()
    try:
        del session, sound
        assert [array() for array in arrays] == [None] * len(arrays)
    finally:
        gc.enable()
