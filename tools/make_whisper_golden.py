"""Makes tests/models/golden/whisper.json: what Transformers' Whisper writes, in float32, greedily.

    python tools/make_whisper_golden.py tiny.en=FOLDER base=FOLDER      (FOLDER: a CTranslate2 checkpoint)

Needs PyTorch and Transformers. The weights are CTranslate2's, widened to float32. Recordings of one window go through
Transformers as they are. For the long one its procedure for long recordings runs with one change: the log-mel floor is
each window's own, as in training and in Tallow, and a window's edges see their neighbours.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.audio_utils import mel_filter_bank

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
from tests import recordings  # noqa: E402

from tallow.models.checkpoint import open_checkpoint  # noqa: E402
from tallow.text.tokenizer import Tokenizer  # noqa: E402

TARGET = ROOT / "tests" / "models" / "golden" / "whisper.json"


def build(folder):
    """Transformers' model with the weights of a CTranslate2 checkpoint, and its tokenizer."""
    checkpoint = open_checkpoint(folder)
    tokenizer = Tokenizer.from_folder(folder)
    end = tokenizer.id("<|endoftext|>")
    special = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
    start = {"decoder_start_token_id": tokenizer.id("<|startoftranscript|>")}
    config = {key: value for key, value in checkpoint.config.items() if key != "model_type"}
    model = WhisperForConditionalGeneration(WhisperConfig(**config, **special, **start)).eval()
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}  # k has no bias
    for name in checkpoint.source.names():
        state[name] = torch.from_numpy(np.array(checkpoint.source.read(name), np.float32))
    model.load_state_dict(state)

    found = checkpoint.generation_config
    tables = {
        "lang_to_id": {f"<|{code}|>": tokenizer.id(f"<|{code}|>") for code in ("en", "de", "fr")},
        "task_to_id": {task: tokenizer.id(f"<|{task}|>") for task in ("transcribe", "translate")},
    }
    model.generation_config = GenerationConfig(
        **special,
        **start,
        max_length=448,
        max_initial_timestamp_index=50,
        is_multilingual=found["is_multilingual"],
        suppress_tokens=found["suppress_tokens"],
        begin_suppress_tokens=found["begin_suppress_tokens"],
        no_timestamps_token_id=tokenizer.id("<|notimestamps|>"),
        prev_sot_token_id=tokenizer.id("<|startofprev|>"),
        **(tables if found["is_multilingual"] else {}),
    )
    return model, tokenizer


def options(model):
    return {"language": "en", "task": "transcribe"} if model.generation_config.is_multilingual else {}


def one_window(model, samples, timestamps):
    """The tokens that are written for a recording of at most 30 seconds, without the end."""
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    features = extractor(samples, sampling_rate=recordings.RATE, return_tensors="pt").input_features
    written = model.generate(
        features, return_timestamps=timestamps, do_sample=False, force_unique_generate_call=True, **options(model)
    )[0].tolist()
    opening = 1 + 2 * model.generation_config.is_multilingual + (not timestamps)
    assert written[0] == model.generation_config.decoder_start_token_id
    return [id for id in written[opening:] if id != model.generation_config.eos_token_id]


def long_form(model, samples):
    """The segments of a long recording: start, end and tokens."""
    bands = model.config.num_mel_bins
    filters = mel_filter_bank(201, bands, 0.0, 8000.0, recordings.RATE, norm="slaney", mel_scale="slaney")
    padded = torch.from_numpy(np.concatenate([samples, np.zeros(31 * recordings.RATE, np.float32)]))
    power = torch.stft(padded, 400, 160, window=torch.hann_window(400), return_complex=True).abs() ** 2
    logs = (torch.from_numpy(filters).float().T @ power).clamp(min=1e-10).log10()

    def segment(input_features, seek, seek_num_frames, num_segment_frames, cur_bsz, batch_idx_map):
        window = logs[None, :, int(seek[0]) : int(seek[0]) + num_segment_frames]
        return (window.clamp(min=float(window.max()) - 8.0) + 4.0) / 4.0

    model._get_input_segment = segment
    frames = len(samples) // 160
    found = model.generate(
        torch.zeros(1, bands, frames),
        return_timestamps=True,
        return_segments=True,
        condition_on_prev_tokens=False,
        do_sample=False,
        **options(model),
    )["segments"][0]
    del model._get_input_segment
    return [[round(float(s["start"]), 2), round(float(s["end"]), 2), s["tokens"].tolist()] for s in found]


def main():
    golden = {}
    for argument in sys.argv[1:]:
        name, _, folder = argument.partition("=")
        model, tokenizer = build(folder)
        with torch.no_grad():
            entry = {}
            for recording in (recordings.harbour, recordings.jfk):
                for timestamps in (True, False):
                    ids = one_window(model, recording(), timestamps)
                    key = recording.__name__ + ("" if timestamps else "_without_timestamps")
                    entry[key] = ids
                    print(name, key, tokenizer.decode(id for id in ids if id <= model.generation_config.eos_token_id))
            entry["long"] = long_form(model, recordings.long())
            for start, end, ids in entry["long"]:
                text = tokenizer.decode(id for id in ids if id <= model.generation_config.eos_token_id)
                print(name, f"{start:7.2f} {end:7.2f} {text}")
        golden[name] = entry
    TARGET.write_text(json.dumps(golden, separators=(",", ":")).replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main()
