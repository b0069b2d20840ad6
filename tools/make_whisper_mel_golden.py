"""Make tests/media/golden/whisper_mel.npz: log-mel windows of examples/harbour.flac, by Transformers.

Needs the extra `oracle`. `alone`: the recording by itself, as WhisperFeatureExtractor returns it. `within`: the window
from frame 1234 on of the recording four times over, cut from the spectrogram of the whole before the floor is applied,
as the model was trained. Every 50th frame is kept.
"""

from pathlib import Path

import numpy as np
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import spectrogram, window_function

from tallow.media import load_audio

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "tests" / "media" / "golden" / "whisper_mel.npz"
START, FRAMES, EVERY = 1234, 3000, 50


def within(samples: np.ndarray, filters: np.ndarray) -> np.ndarray:
    whole = spectrogram(
        np.pad(samples.astype(np.float64), (0, 30 * 16_000)), window_function(400, "hann"), 400, 160,
        power=2.0, mel_filters=filters, log_mel="log10",
    )  # fmt: skip
    window = whole[:, START : START + FRAMES]
    return (np.maximum(window, window.max() - 8.0) + 4.0) / 4.0


def main() -> None:
    samples = load_audio(ROOT / "examples" / "harbour.flac", 16_000).numpy()
    golden = {}
    for bands in (80, 128):
        extractor = WhisperFeatureExtractor(feature_size=bands)
        alone = extractor(samples, sampling_rate=16_000, return_tensors="np").input_features[0]
        golden[f"alone{bands}"] = alone[:, ::EVERY].astype(np.float32)
        golden[f"within{bands}"] = within(np.tile(samples, 4), extractor.mel_filters)[:, ::EVERY].astype(np.float32)
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **golden)


if __name__ == "__main__":
    main()
