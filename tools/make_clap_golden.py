"""Makes tests/models/golden/clap.npz: what Transformers' CLAP makes of sounds and texts, stage by stage.

    python tools/make_clap_golden.py

Needs PyTorch and Transformers. The weights are random and those of ``tests/models/tiny_clap.py``. Sounds go through
Transformers' feature extractor; where it draws at random, the draws are kept beside the features.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import ClapFeatureExtractor, ClapModel

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
from tests.models import tiny_clap  # noqa: E402

TARGET = ROOT / "tests" / "models" / "golden" / "clap.npz"
SECONDS = {"short": 0.31, "exact": 2.0, "between": 2.005, "long": 4.7}


def features(golden, extractor, truncation):
    """Log-mel features of every sound, every 20th frame of them, and where their crops begin."""
    drawn = []
    randint, choice = np.random.randint, np.random.choice
    np.random.randint = lambda low, high: drawn.append(randint(low, high)) or drawn[-1]
    np.random.choice = lambda places: drawn.append(choice(places)) or drawn[-1]
    np.random.seed(3)
    for name, seconds in SECONDS.items():
        drawn.clear()
        found, longer = extractor._get_input_mel(tiny_clap.sound(seconds), tiny_clap.CLIP, truncation, "repeatpad")
        key = f"{truncation}/{name}"
        golden[f"{key}/mel"], golden[f"{key}/longer"] = found[:, ::20].astype(np.float32), np.array(longer)
        golden[f"{key}/offsets"] = np.array(drawn, np.int64)
    np.random.randint, np.random.choice = randint, choice


def stages(golden, folder, fusion):
    """Patch embedding, each stage, and both vectors."""
    model = ClapModel.from_pretrained(folder).eval()
    name = "fused" if fusion else "unfused"
    mel = np.random.default_rng(5).uniform(-80, 10, (2, 4 if fusion else 1, 201, 64)).astype(np.float32)
    longer = torch.tensor([[False], [fusion]])
    encoder = model.audio_model.audio_encoder
    seen = encoder(
        torch.from_numpy(mel), longer, output_hidden_states=True, output_hidden_states_before_downsampling=True
    )
    for i, state in enumerate(seen.hidden_states):  # (b, dim, h, w): a patch in each corner and the middle
        h, w = state.shape[2:]
        golden[f"{name}/stage{i}"] = state[:, :, [0, h // 2, -1]][:, :, :, [0, w // 2, -1]].numpy()
    found = model.get_audio_features(input_features=torch.from_numpy(mel), is_longer=longer)
    golden[f"{name}/audio"] = found.pooler_output.numpy()
    ids = torch.tensor([[0, 17, 200, 33, 81, 2], [0, 5, 9, 2, 1, 1]])
    text = model.get_text_features(input_ids=ids, attention_mask=(ids != 1).long())
    golden[f"{name}/text"] = text.pooler_output.numpy()


def main():
    golden = {}
    for fusion in (False, True):
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            tiny_clap.write(Path(folder), fusion)
            features(golden, ClapFeatureExtractor.from_pretrained(folder), "fusion" if fusion else "rand_trunc")
            stages(golden, folder, fusion)
    np.savez_compressed(TARGET, **golden)
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
