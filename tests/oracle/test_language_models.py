"""Language models against Transformers on the same random weights."""

import numpy as np
import pytest

from tallow.engine.step import Decoder
from tallow.models.checkpoint import open_checkpoint
from tallow.models.registry import find_class
from tallow.tensor import Tensor
from tallow.weights.var_builder import VarBuilder

torch = pytest.importorskip("torch", reason="needs the extra `oracle`")
transformers = pytest.importorskip("transformers", reason="needs the extra `oracle`")
pytestmark = pytest.mark.oracle

SIZES = {"vocab_size": 331, "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3,
         "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 256}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64, "rope_theta": 5e5}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e6}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
GEMMA3 = {"head_dim": 32, "num_hidden_layers": 7, "sliding_window": 7, "query_pre_attn_scalar": 24,
          "tie_word_embeddings": True}  # fmt: skip
CASES = {
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-tied": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-yarn": ("Qwen3", {"head_dim": 32, "rope_parameters": YARN}),
    "qwen3-bias": ("Qwen3", {"head_dim": 32, "attention_bias": True}),
    "qwen3-window": (
        "Qwen3",
        {"head_dim": 32, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 6}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
    "qwen2-linear": ("Qwen2", {"rope_parameters": LINEAR}),
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-bias": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    "llama-llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-linear": ("Llama", {"rope_parameters": LINEAR, "num_key_value_heads": 1}),
    "llama-yarn": ("Llama", {"rope_parameters": YARN}),
    "mistral": ("Mistral", {"sliding_window": 6, "head_dim": 32}),
    "mistral-whole": ("Mistral", {"sliding_window": None}),
    "gemma3": ("Gemma3", GEMMA3),
    "gemma3-softcap": ("Gemma3", GEMMA3 | {"final_logit_softcapping": 3.0, "attention_bias": True}),
    "gemma3-linear": (
        "Gemma3",
        GEMMA3
        | {
            "layer_types": ["full_attention", "sliding_attention"],
            "num_hidden_layers": 2,
            "rope_parameters": {
                "full_attention": LINEAR,
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
            },
        },
    ),
}


def layer(hidden, between, heads, kv_heads, head_dim=128, **rest):
    """One layer of a published size, which only repeats it."""
    return {"num_hidden_layers": 1, "hidden_size": hidden, "intermediate_size": between, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": head_dim, **rest}  # fmt: skip


PUBLISHED = {
    "Qwen3-0.6B": ("Qwen3", layer(1024, 3072, 16, 8, tie_word_embeddings=True)),
    "Qwen3-1.7B": ("Qwen3", layer(2048, 6144, 16, 8, tie_word_embeddings=True)),
    "Qwen3-4B": ("Qwen3", layer(2560, 9728, 32, 8, tie_word_embeddings=True)),
    "Qwen3-8B": ("Qwen3", layer(4096, 12288, 32, 8)),
    "Qwen3-14B": ("Qwen3", layer(5120, 17408, 40, 8)),
    "Qwen3-32B": ("Qwen3", layer(5120, 25600, 64, 8)),
    "Qwen2.5-0.5B": ("Qwen2", layer(896, 4864, 14, 2, 64, tie_word_embeddings=True)),
    "Qwen2.5-7B": ("Qwen2", layer(3584, 18944, 28, 4)),
    "SmolLM2-135M": ("Llama", layer(576, 1536, 9, 3, 64, tie_word_embeddings=True)),
    "Llama-3.2-1B": ("Llama", layer(2048, 8192, 32, 8, 64, tie_word_embeddings=True, rope_parameters=LLAMA3)),
    "Llama-3.1-8B": ("Llama", layer(4096, 14336, 32, 8, rope_parameters=LLAMA3)),
    "Mistral-7B": ("Mistral", layer(4096, 14336, 32, 8, sliding_window=None)),
    "Gemma-3-1B": ("Gemma3", layer(1152, 6912, 4, 1, 256, sliding_window=512, tie_word_embeddings=True)),
    "Gemma-3-4B": ("Gemma3", layer(2560, 10240, 8, 4, 256, sliding_window=1024, tie_word_embeddings=True)),
}
PAIRS = [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED)]


def randomised(name, changes):
    """Transformers' model of a family, every tensor of which is random: zeros and ones would hide mistakes."""
    torch.manual_seed(0)
    config_class = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")
    model = getattr(transformers, f"{name}ForCausalLM")(config_class(**SIZES | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else parameter.shape[1] ** -0.5))
    return model.eval()


@pytest.fixture(scope="module", params=PAIRS)
def pair(request, tmp_path_factory):
    """Transformers' model, and ours made from what it saves."""
    name, changes = (CASES | PUBLISHED)[request.param]
    folder = tmp_path_factory.mktemp("model")
    theirs = randomised(name, changes)
    theirs.save_pretrained(folder)
    checkpoint = open_checkpoint(folder)
    return theirs, find_class(checkpoint.architecture).from_checkpoint(checkpoint, VarBuilder(checkpoint.source))


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def logits(model, ids, cache, counts=None):
    return model.logits(model.forward(Tensor(np.asarray(ids)), cache, counts)).numpy()


def reference(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


PROMPT = np.random.default_rng(1).integers(0, 331, 70).tolist()


def test_the_whole_prompt_at_once(pair):
    theirs, ours = pair
    got = logits(ours, [PROMPT], ours.new_cache(1, 100))
    assert got.shape == (1, 70, 331)
    assert relative_error(got[0], reference(theirs, PROMPT)) < 2e-5


def test_step_by_step_after_a_chunk(pair):
    theirs, ours = pair
    cache = ours.new_cache(1, 70)
    parts = [logits(ours, [PROMPT[:33]], cache)]
    parts += [logits(ours, [[token]], cache) for token in PROMPT[33:]]
    assert relative_error(np.concatenate(parts, axis=1)[0], reference(theirs, PROMPT)) < 2e-5


def test_recorded_steps_after_a_chunk(pair):
    """Of models with windows as well, which keys leave all the while."""
    theirs, ours = pair
    cache = ours.new_cache(1, 70)
    logits(ours, [PROMPT[:33]], cache)
    step = Decoder(ours, cache)
    got = np.concatenate([np.array(step([token], [[]])[0]) for token in PROMPT[33:]])
    assert step.recordable
    assert relative_error(got, reference(theirs, PROMPT)[33:]) < 2e-5


def test_a_batch_of_unequal_rows(pair):
    theirs, ours = pair
    lengths = [20, 1, 13]
    rows = [[0] * (20 - n) + PROMPT[:n] for n in lengths]
    cache = ours.new_cache(3, 40)
    first = logits(ours, rows, cache, lengths)
    then = logits(ours, [PROMPT[n : n + 5] for n in lengths], cache)
    for row, n in enumerate(lengths):
        expected = reference(theirs, PROMPT[: n + 5])
        assert relative_error(first[row, 20 - n :], expected[:n]) < 2e-5
        assert relative_error(then[row], expected[n:]) < 2e-5


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2e-3), ("int8", 2e-2)])
def test_a_smaller_cache_stays_close(pair, dtype, bound):
    theirs, ours = pair
    got = logits(ours, [PROMPT], ours.new_cache(1, 100, dtype))
    assert relative_error(got[0], reference(theirs, PROMPT)) < bound
