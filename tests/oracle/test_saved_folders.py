"""Folders as the newest Transformers saves them, model and processor or tokenizer: loaded as they are, same answers."""

import numpy as np
import pytest
from PIL import Image

import tallow as tl
from tallow.convert import convert
from tests.models import tiny_clap, tiny_dino, tiny_whisper
from tests.text.vocabularies import byte_level

torch = pytest.importorskip("torch", reason="needs the extra oracle")
transformers = pytest.importorskip("transformers", reason="needs the extra oracle")
pytestmark = pytest.mark.oracle

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e5}
WINDOWS = {"use_sliding_window": True, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
WRITERS = {
    "llama": ("Llama", {}), "llama-tied": ("Llama", {"tie_word_embeddings": True, "mlp_bias": True}),
    "llama-yarn": ("Llama", {"rope_parameters": YARN}), "mistral": ("Mistral", {"sliding_window": 8}),
    "qwen2": ("Qwen2", {}), "qwen2-windows": ("Qwen2", WINDOWS), "qwen3": ("Qwen3", {}),
}  # fmt: skip
MESSAGES = [{"role": "user", "content": "the cat"}]
PROMPT = "the cat sat on"


def randomised(model):
    """The model, every tensor of which is random: zeros and ones would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.1 if parameter.dim() < 2 else parameter[0].numel() ** -0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def relative_error(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.fixture(scope="module", params=WRITERS)
def writer(request, tmp_path_factory):
    """A language model's folder, and the tokenizer and 12 tokens of Transformers."""
    name, changes = WRITERS[request.param]
    folder = tmp_path_factory.mktemp("saved")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), eos_token="<|im_end|>", bos_token="<|im_start|>",
        extra_special_tokens=["<|more|>"],
        chat_template="{% for m in messages %}<|im_start|>{{ m.role }}|{{ m.content }}{{ eos_token }}{% endfor %}",
    )  # fmt: skip
    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), eos_token_id=None, **SIZES | changes)
    model = randomised(getattr(transformers, f"{name}ForCausalLM")(config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        answer = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    return folder, tokenizer, answer


def test_a_writer(writer):
    folder, tokenizer, answer = writer
    model = tl.load(folder, device="cpu")
    assert model.generate(PROMPT, max_tokens=12, temperature=0, ignore_eos=True).ids == answer
    text = "the <|more|> cat <|im_end|>"
    assert model.tokenizer.encode(text, special=True) == tokenizer(text).input_ids
    assert model.tokenizer.id("<|more|>") in model.tokenizer.special
    assert tokenizer.eos_token_id in model.text.eos_token_ids
    assert model.text.template.render(MESSAGES) == tokenizer.apply_chat_template(MESSAGES, tokenize=False)


def test_a_converted_writer(writer, tmp_path):
    folder, tokenizer, answer = writer
    convert(folder, tmp_path / "again")
    model = tl.load(tmp_path / "again", device="cpu")
    assert model.generate(PROMPT, max_tokens=12, temperature=0, ignore_eos=True).ids == answer
    assert model.text.template.render(MESSAGES) == tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        again = theirs.eval().generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert again[0, ids.shape[1] :].tolist() == answer


@pytest.mark.parametrize("fusion", [False, True])
def test_clap(tmp_path, fusion):
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny_clap.tokenizer(), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    settings = tiny_clap.features(fusion)
    settings.pop("feature_extractor_type")
    extractor = transformers.ClapFeatureExtractor(**settings)
    processor = transformers.ClapProcessor(extractor, tokenizer)
    model = randomised(transformers.ClapModel(transformers.ClapConfig(**tiny_clap.config(fusion))))
    folder = tmp_path / "clap"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    ours = tl.load(folder, device="cpu")
    sound = tiny_clap.sound(1.3)
    with torch.no_grad():
        texts = model.get_text_features(**processor(text=["rain"], return_tensors="pt"))
        heard = processor(audio=[sound], sampling_rate=48_000, return_tensors="pt")
        heard["is_longer"] = torch.tensor([[False]])  # of a batch without a longer one, it says it of one drawn by lot
        sounds = model.get_audio_features(**heard)
    for found, theirs in ((ours.embed_text(["rain"]), texts), (ours.embed_audio([sound]), sounds)):
        expected = (theirs if isinstance(theirs, torch.Tensor) else theirs.pooler_output).numpy()
        expected /= np.linalg.norm(expected)
        assert relative_error(found.numpy(), expected) < 2e-5


@pytest.mark.parametrize("side", [64, 384])
@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_pictures_as_a_convnext_is_shown_them(tmp_path, kind, side):
    config = dict(tiny_dino.CONFIGS[kind])
    name = {"vit": "DINOv3ViT", "convnext": "DINOv3ConvNext"}[kind]
    config.pop("model_type")
    model = randomised(getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**config)))
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": side})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    ours = tl.load(tmp_path, device="cpu")
    for height, width in ((90, 131), (400, 301), (64, 64)):
        photo = tiny_dino.photo(height, width)
        pixels = processor(Image.fromarray(photo), return_tensors="pt").pixel_values
        with torch.no_grad():
            expected = model(pixels).pooler_output[0].numpy()
        assert relative_error(ours.features(photo).class_token.numpy(), expected) < 1e-4


def test_whisper(tmp_path):
    folder = tmp_path / "whisper"
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tiny_whisper.tokenizer())
    sizes = tiny_whisper.SIZES | {"pad_token_id": 256, "bos_token_id": 256, "eos_token_id": 256,
                                  "decoder_start_token_id": 257, "begin_suppress_tokens": [1]}  # fmt: skip
    model = randomised(transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**sizes)))
    model.generation_config.is_multilingual = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    ours = tl.load(folder, device="cpu")
    assert ours.generation.multilingual
    assert ours.generation.begin_suppress_tokens == (1,)
    sound = np.sin(np.arange(16_000) / 20).astype(np.float32)
    assert ours.transcribe(sound, language="en", temperature=0.0, beam_size=1).language == "en"
