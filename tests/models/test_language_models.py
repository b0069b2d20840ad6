import numpy as np
import pytest

from tallow.engine.step import Decoder
from tallow.errors import WeightsError
from tallow.models.gemma3 import Gemma3Config
from tallow.models.language_model import Head
from tallow.models.llama import LlamaConfig
from tallow.models.qwen2 import Qwen2Config
from tallow.models.qwen3 import Qwen3Config
from tallow.models.registry import find_class
from tallow.nn import Embedding
from tallow.runtime.threads import get_num_threads, set_num_threads
from tallow.tensor import Tensor
from tallow.weights.safetensors import open_safetensors, save_safetensors
from tallow.weights.var_builder import VarBuilder

SIZES = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}  # fmt: skip
CONFIGS = {"qwen3": Qwen3Config, "qwen2": Qwen2Config, "llama": LlamaConfig, "gemma3_text": Gemma3Config}


def make(name, **changes):
    model_class = find_class(name)
    return model_class(model_class.Config.from_dict(SIZES | changes), VarBuilder.random(3))


def logits(model, rows, cache, counts=None):
    return model.logits(model.forward(Tensor(np.array(rows)), cache, counts)).numpy()


@pytest.fixture
def threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_rows_logits_do_not_depend_on_how_they_are_computed(name, threads):
    """Whatever stands beside a row, however its prompt is cut, and whatever the number of threads: bit for bit."""
    model = make(name)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 97, 60).tolist()
    expected = logits(model, [ids], model.new_cache(1, 60))[0]
    for _ in range(12):
        set_num_threads(int(rng.integers(1, 4)))
        batch = int(rng.integers(1, 5))
        place = int(rng.integers(batch))
        cache = model.new_cache(batch, 128)
        begin = 0
        while begin < 60:
            count = int(rng.integers(1, 61 - begin))
            width = count + int(rng.integers(0, 9))
            counts = rng.integers(0, width + 1, batch).tolist()
            counts[place] = count
            room = 120 - cache.lengths
            counts = [min(c, int(r)) for c, r in zip(counts, room, strict=True)]
            rows = rng.integers(0, 97, (batch, width))
            rows[place, width - count :] = ids[begin : begin + count]
            got = logits(model, rows, cache, counts)[place, width - count :]
            np.testing.assert_array_equal(got, expected[begin : begin + count])
            begin += count


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("options", [{}, {"dtype": "float16"}, {"quantize": "int8"}, {"quantize": "int4"}])
def test_decoding_is_recorded_and_replayed(name, options, caplog):
    """The recorded steps give what eager ones give, bit for bit, also after a row has left the batch."""
    changes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "tie_word_embeddings": True}
    model_class = find_class(name)
    model = model_class(model_class.Config.from_dict(SIZES | changes), VarBuilder.random(3, **options))
    eager, recorded = model.new_cache(2, 40), model.new_cache(2, 40)
    step = Decoder(model, recorded)
    logits(model, [[1, 2, 3], [0, 5, 6]], eager, [3, 2])
    logits(model, [[1, 2, 3], [0, 5, 6]], recorded, [3, 2])
    with caplog.at_level("DEBUG", "tallow"):
        for i in range(6):
            got = step([i, 7 * i], [[], []])
            np.testing.assert_array_equal(np.array(got), logits(model, [[i], [7 * i]], eager))
        for cache in (eager, recorded):
            cache.select([1])
        for i in range(3):
            np.testing.assert_array_equal(step([i], [[]])[0], logits(model, [[i]], eager)[0])
    assert "without a recording" not in caplog.text


def test_cache_rows_are_shared_with_their_first_part():
    model = make("qwen3")
    cache = model.new_cache(3, 20)
    logits(model, [[1, 2], [3, 4]], cache.rows(2))
    assert cache.lengths.tolist() == [2, 2, 0]
    logits(model, [[5], [6], [7]], cache)
    expected = logits(model, [[3, 4, 6, 8]], model.new_cache(1, 9))[0, -1]
    cache.select([1, 0])
    np.testing.assert_array_equal(logits(model, [[8], [9]], cache)[0, -1], expected)


def test_an_embedding_model_has_no_head(tmp_path):
    save_safetensors({"embed_tokens.weight": np.ones((97, 48), np.float32)}, tmp_path / "model.safetensors")
    vb = VarBuilder(open_safetensors(tmp_path / "model.safetensors"))
    table = Embedding(97, 48, vb.pp("embed_tokens"))
    x = Tensor(np.ones((1, 48), np.float32))
    assert Head(table, True, vb)(x).numpy().tolist() == [[48.0] * 97]
    with pytest.raises(WeightsError, match=r"no lm_head\.weight: it gives embeddings"):
        Head(table, False, vb)(x)


@pytest.mark.parametrize("config", CONFIGS.values())
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": 0}, "hidden_size must be from 1"),
        ({"hidden_size": 2**40}, "hidden_size must be from 1"),
        ({"hidden_size": "48"}, "hidden_size must be from 1"),
        ({"vocab_size": True}, "vocab_size must be from 1"),
        ({"num_key_value_heads": 3}, "divisor of the 4 heads"),
        ({"rms_norm_eps": 0}, "rms_norm_eps must be a positive number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false"),
        ({"rope_scaling": [1]}, "rope_scaling must be an object"),
        ({"rope_theta": 1.0}, "rope_theta must be above 1"),
    ],
)
def test_configs_that_cannot_be(config, changes, said):
    with pytest.raises(WeightsError, match=said):
        config.from_dict(SIZES | changes)


@pytest.mark.parametrize("config", [Qwen3Config, Qwen2Config, LlamaConfig])
def test_variants_that_are_not_computed(config):
    with pytest.raises(WeightsError, match="hidden_act must be 'silu'"):
        config.from_dict(SIZES | {"hidden_act": "gelu"})
    with pytest.raises(WeightsError, match="partial_rotary_factor 1"):
        config.from_dict(SIZES | {"rope_parameters": {"partial_rotary_factor": 0.5}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_activation": "silu"}, "hidden_activation must be 'gelu_pytorch_tanh'"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping must be None"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention must be False"),
        ({"rope_parameters": {"rope_theta": 5e5}}, "rope_parameters must be an object for each kind of layer"),
        ({"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}}, "partial_rotary_factor 1"),
        ({"final_logit_softcapping": 0}, "final_logit_softcapping must be a positive number"),
        ({"layer_types": ["full_attention"]}, "layer_types must be a list of 2 kinds"),
    ],
)
def test_variants_of_gemma_that_are_not_computed(changes, said):
    with pytest.raises(WeightsError, match=said):
        Gemma3Config.from_dict(SIZES | changes)


def test_layers_of_gemma():
    """As its first files say them, and as those of Transformers 5 do."""
    older = {"num_hidden_layers": 6, "sliding_window": 9, "rope_theta": 5e5, "rope_local_base_freq": 2e4,
             "rope_scaling": {"rope_type": "linear", "factor": 8.0}}  # fmt: skip
    newer = {"num_hidden_layers": 6, "sliding_window": 9, "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
             "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
                                 "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}}  # fmt: skip
    for said in (older, newer):
        config = Gemma3Config.from_dict(SIZES | said)
        assert config.windows == (9, 9, 9, 9, 9, None)
        assert (config.rope_theta, config.local_rope_theta) == (5e5, 2e4)
        assert config.rope_scaling["factor"] == 8
        assert (config.local_rope_scaling or {}).get("rope_type", "default") == "default"


def test_heads_of_odd_or_uneven_size():
    with pytest.raises(WeightsError, match="head_dim must be even"):
        LlamaConfig.from_dict(SIZES | {"head_dim": 7})
    with pytest.raises(WeightsError, match="lacks head_dim"):
        LlamaConfig.from_dict(SIZES | {"hidden_size": 50})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
        ("llama", {"sliding_window": 5}),
    ],
)
def test_steps_in_windows_are_recorded(name, changes):
    model = make(name, **changes)
    ids = np.random.default_rng(0).integers(0, 97, (2, 30)).tolist()
    expected = logits(model, ids, model.new_cache(2, 30))
    whole = make(name)
    assert not np.allclose(expected[:, 9:], logits(whole, ids, whole.new_cache(2, 30))[:, 9:], atol=1e-3)
    cache = model.new_cache(2, 30)
    logits(model, [row[:3] for row in ids], cache)
    step = Decoder(model, cache)
    for at in range(3, 30):
        found = np.stack(step([row[at] for row in ids], [[], []]))[:, 0]
        np.testing.assert_array_equal(found, expected[:, at])
    assert step.recordable


def test_windows():
    def windows(**changes):
        return Qwen2Config.from_dict(SIZES | changes).windows

    assert windows() == (None, None)
    assert windows(use_sliding_window=True, sliding_window=5, max_window_layers=1) == (None, 5)
    assert windows(use_sliding_window=True, sliding_window=5) == (None, None)
    kinds = ["sliding_attention", "full_attention"]
    assert windows(use_sliding_window=True, sliding_window=5, layer_types=kinds) == (5, None)
    assert windows(sliding_window=5, layer_types=["full_attention"] * 2) == (None, None)
    for kinds in (["full_attention"], ["other"] * 2, "full"):
        with pytest.raises(WeightsError, match="layer_types"):
            windows(layer_types=kinds)
    assert LlamaConfig.from_dict(SIZES | {"sliding_window": None}).window is None
    assert LlamaConfig.from_dict(SIZES | {"sliding_window": 9}).window == 9


def test_rope_settings_old_and_new():
    scaling = {"rope_type": "linear", "factor": 2.0}
    old = LlamaConfig.from_dict(SIZES | {"rope_theta": 5e5, "rope_scaling": scaling})
    new = LlamaConfig.from_dict(SIZES | {"rope_parameters": scaling | {"rope_theta": 5e5}})
    assert old.rope_theta == new.rope_theta == 5e5
    assert old.rope_scaling == scaling
    assert LlamaConfig.from_dict(SIZES).rope_scaling is None
