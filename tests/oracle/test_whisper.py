"""Whisper's networks against Transformers' on the same random weights."""

import numpy as np
import pytest

from tallow.models.whisper import Whisper, WhisperConfig
from tallow.models.whisper.session import DecoderSession
from tallow.tensor import Tensor
from tallow.weights.adapters.whisper import from_huggingface
from tallow.weights.safetensors import open_safetensors
from tallow.weights.var_builder import VarBuilder

torch = pytest.importorskip("torch", reason="needs the extra oracle")
transformers = pytest.importorskip("transformers", reason="needs the extra oracle")
pytestmark = pytest.mark.oracle

TOLERANCE = 2e-5
SMALL = {
    "d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 100, "decoder_layers": 3,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 70, "vocab_size": 301, "num_mel_bins": 20,
    "max_source_positions": 37, "max_target_positions": 29,
}  # fmt: skip


def published(width, layers, heads, vocabulary, mels=80, decoder_layers=None):
    return {
        "d_model": width, "encoder_layers": layers, "encoder_attention_heads": heads, "encoder_ffn_dim": 4 * width,
        "decoder_layers": decoder_layers or layers, "decoder_attention_heads": heads, "decoder_ffn_dim": 4 * width,
        "vocab_size": vocabulary, "num_mel_bins": mels,
    }  # fmt: skip


CONFIGS = [
    pytest.param(SMALL, id="small"),
    pytest.param(published(384, 4, 6, 51864), id="tiny.en", marks=pytest.mark.slow),
    pytest.param(published(512, 6, 8, 51865), id="base", marks=pytest.mark.slow),
    pytest.param(published(768, 12, 12, 51865), id="small-full", marks=pytest.mark.slow),
    pytest.param(published(1280, 32, 20, 51866, mels=128, decoder_layers=4), id="turbo", marks=pytest.mark.slow),
]


def randomised(config):
    """Transformers' model, every tensor of which is random: zeros and ones would hide mistakes."""
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(**config, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0)
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed_positions" not in name:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif parameter.dim() == 1:
                parameter.normal_(1, 0.1)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    """Transformers' model and ours, with the same random weights."""
    theirs = randomised(request.param)
    folder = tmp_path_factory.mktemp("checkpoint")
    theirs.save_pretrained(folder)
    source = from_huggingface(open_safetensors(folder))
    return theirs, Whisper(WhisperConfig.from_dict(request.param), VarBuilder(source))


def error(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def sound(config, seed=0):
    shape = (config.num_mel_bins, 2 * config.max_source_positions)
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def test_encoder_and_logits(pair):
    theirs, ours = pair
    mel = sound(ours.config)
    n = 12
    ids = np.random.default_rng(1).integers(0, ours.config.vocab_size, n).tolist()
    with torch.no_grad():
        hidden = theirs.model.encoder(torch.from_numpy(mel)[None]).last_hidden_state
        logits = theirs(encoder_outputs=(hidden,), decoder_input_ids=torch.tensor([ids])).logits[0]
    encoded = ours.encoder(Tensor(mel[None]))
    assert error(encoded.numpy(), hidden.numpy()) < TOLERANCE

    session = ours.session([layer.cross.project_kv(encoded) for layer in ours.decoder.layers])
    assert error(session.start(ids, range(n)), logits.numpy()) < TOLERANCE
    # The same token by token:
    steps = [session.start(ids[:3], [2])[0], *(session.step([id])[0].copy() for id in ids[3:])]
    assert error(np.stack(steps), logits.numpy()[2:]) < TOLERANCE


@pytest.mark.parametrize("pair", CONFIGS[:1], indirect=True)
def test_candidates_side_by_side(pair):
    theirs, ours = pair
    mel = sound(ours.config, 1)
    first, rest = [1, 2, 3], [[4, 5], [6, 7], [8, 9]]
    session = ours.session(ours.encode(mel), rows=3)
    session.start(first, [2])
    session.select([0, 0, 0])
    session.step([row[0] for row in rest])
    session.select([2, 0, 2])
    found = session.step([rest[2][1], rest[0][1], 10])
    with torch.no_grad():
        rows = torch.tensor([[*first, *rest[2]], [*first, *rest[0]], [*first, rest[2][0], 10]])
        expected = theirs(torch.from_numpy(mel)[None].expand(3, -1, -1), decoder_input_ids=rows).logits[:, -1]
    assert error(found, expected.numpy()) < TOLERANCE


@pytest.mark.parametrize("pair", CONFIGS[:1], indirect=True)
def test_attention_of_the_alignment_heads(pair):
    theirs, ours = pair
    mel, ids = sound(ours.config, 2), list(range(9))
    layers = ours.config.decoder_layers
    heads = [(layers - 1, 1), (0, 0), (layers - 1, 3)]
    positions = ours.config.max_source_positions
    weights, logits = DecoderSession(ours.decoder, ours.encode(mel)).align(ids, heads, positions)
    theirs.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            found = theirs(torch.from_numpy(mel)[None], decoder_input_ids=torch.tensor([ids]), output_attentions=True)
    finally:
        theirs.set_attn_implementation("sdpa")
    expected = torch.stack([found.cross_attentions[layer][0, head] for layer, head in [(0, 0), *heads[::2]]])
    assert error(weights, expected.numpy()) < TOLERANCE
    assert error(logits, found.logits[0].numpy()) < TOLERANCE
    few, _ = DecoderSession(ours.decoder, ours.encode(mel)).align(ids, heads, 7)
    assert few.shape == (3, 9, 7)
    np.testing.assert_allclose(few, weights[..., :7] / weights[..., :7].sum(-1, keepdims=True), rtol=1e-4)
