"""Transformers on an NVIDIA GPU, as the benchmarks run it beside Tallow: `main` is a worker (see `common.Worker`).

Random weights of the published sizes. Language models write with a static cache, for which Transformers compiles them;
DINOv3 is compiled too. Every part gives milliseconds by the name of what they were taken of, as Tallow's side does.
"""

import os
import sys
import time

import torch
from common import serve
from cuda_sizes import BATCH, LARGE, PROMPT, READ, TOKENS, TURBO, WINDOWS, WRITTEN
from qwen3_sizes import SHARED, SIZES

DEVICE = "cuda"


def milliseconds(call, runs=5):
    """The mean time of a call on the card's clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()
    begin.record()
    for _ in range(runs):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / runs


def wall(call):
    """Milliseconds of one call, with whatever the CPU does in it."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) * 1e3


def made(model_class, config, dtype):
    """A model with random weights on the card."""
    torch.set_default_dtype(dtype)
    with torch.device(DEVICE):
        model = model_class(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def language_model(name):
    """What writes ``WRITTEN`` tokens behind a prompt, and reads a long one."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = made(Qwen3ForCausalLM, Qwen3Config(rms_norm_eps=1e-6, **SIZES[name], **SHARED), torch.bfloat16)
    prompt, long = (torch.randint(0, SHARED["vocab_size"], (1, count), device=DEVICE) for count in (PROMPT, READ))
    options = {"do_sample": False, "min_new_tokens": WRITTEN, "max_new_tokens": WRITTEN, "pad_token_id": 0,
               "eos_token_id": None, "cache_implementation": "static"}  # fmt: skip
    return lambda: {
        "write": wall(lambda: model.generate(prompt, **options)),
        "read": milliseconds(lambda: model(long, logits_to_keep=1)),
    }


def whisper(_):
    """What writes ``TOKENS`` tokens of each of some windows; the encoder alone too."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    model = made(WhisperForConditionalGeneration, WhisperConfig(**TURBO), torch.float16)

    def work():
        found = {}
        for windows in WINDOWS:
            mel = torch.randn(windows, TURBO["num_mel_bins"], 3000, device=DEVICE, dtype=torch.float16)
            options = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
            found[f"window {windows}"] = wall(lambda mel=mel, options=options: model.generate(mel, **options))
            found[f"encoder {windows}"] = milliseconds(lambda mel=mel: model.model.encoder(mel))
        return found

    return work


def dinov3(_):
    """What turns a batch of pictures into vectors, compiled."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    model = torch.compile(made(DINOv3ViTModel, DINOv3ViTConfig(**LARGE), torch.bfloat16))
    pixels = torch.randn(BATCH["dinov3"], 3, 224, 224, device=DEVICE, dtype=torch.bfloat16)
    return lambda: {"batch": milliseconds(lambda: model(pixels))}


def clap(_):
    """What turns a batch of spectrograms into vectors."""
    from transformers import ClapAudioConfig, ClapAudioModel

    model = made(ClapAudioModel, ClapAudioConfig(), torch.float16)
    mel = torch.randn(BATCH["clap"], 1, 1001, 64, device=DEVICE, dtype=torch.float16)
    return lambda: {"batch": milliseconds(lambda: model(mel))}


def main():
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # read when it is imported
    torch.set_grad_enabled(False)
    part = sys.argv[1]
    make = {"whisper": whisper, "dinov3": dinov3, "clap": clap}.get(part, language_model)
    serve(make(part))


if __name__ == "__main__":
    main()
