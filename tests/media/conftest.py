import os
import tempfile

import av
import numpy as np
import pytest


def encode_audio(samples, rate, format="wav", codec="pcm_s16le", layout=None, video=False, **options):
    """Samples (channels, n) of float32 -> the bytes of a file, made by FFmpeg."""
    samples = np.atleast_2d(samples)
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    with tempfile.TemporaryDirectory() as folder:  # a file, for the formats that complete their header at the end
        path = os.path.join(folder, "sound")
        with av.open(path, "w", format=format, options=options) as container:
            pictures = container.add_stream("mpeg4", rate=5) if video else None
            stream = container.add_stream(codec, rate=rate, layout=layout) if codec else None
            if pictures is not None:
                pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
                for _ in range(5):
                    container.mux(pictures.encode(av.VideoFrame(32, 32, "yuv420p")))
                container.mux(pictures.encode(None))
            if stream is not None:
                for start in range(0, samples.shape[1], 4096):
                    part = np.ascontiguousarray(samples[:, start : start + 4096], dtype=np.float32)
                    frame = av.AudioFrame.from_ndarray(part, "fltp", layout)
                    frame.sample_rate, frame.pts = rate, start
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        with open(path, "rb") as file:
            return file.read()


@pytest.fixture
def encode():
    return encode_audio


@pytest.fixture
def tone():
    """Five seconds of two sines at 44.1 kHz, (2, n): 440 Hz to the left, 1,000 Hz to the right."""
    time = np.arange(5 * 44_100) / 44_100
    return np.stack([0.5 * np.sin(2 * np.pi * f * time) for f in (440, 1000)]).astype(np.float32)
