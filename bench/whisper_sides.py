"""Whisper on both sides: one beam, temperature 0, no fallback, timestamps, no filter for voices."""

OURS = """
import sys, tallow as tl
from common import serve
model, recording, quantize, threads, warm = sys.argv[1:]
tl.set_num_threads(int(threads))
whisper = tl.load(model, quantize=None if quantize == "float32" else quantize)
options = dict(beam_size=1, temperature=0.0, condition_on_previous_text=False, language="en")
serve(lambda: whisper.transcribe(recording, **options).text, int(warm))
"""
PEER = """
import sys
from common import serve
from faster_whisper import WhisperModel
model, recording, compute_type, threads, warm = sys.argv[1:]
whisper = WhisperModel(model, device="cpu", compute_type=compute_type, cpu_threads=int(threads))
options = dict(beam_size=1, temperature=0.0, condition_on_previous_text=False, language="en", vad_filter=False)
serve(lambda: "".join(segment.text for segment in whisper.transcribe(recording, **options)[0]).strip(), int(warm))
"""


def words(text):
    """The words alone, to be compared."""
    return "".join(c for c in text.lower() if c.isalnum() or c.isspace()).split()


def encoder_operations(config):
    """Floating-point operations of the encoder and of the cross keys and values, for one window.

    Two for every multiply-add; with d the width, h the hidden width, L layers and n positions:
    convolutions 2·3·d·(mels·2n + d·n); each layer 2n·(4d² + 2dh) + 4n²d; each decoder layer's keys and values 4nd².
    """
    d, h, n = config["d_model"], config["encoder_ffn_dim"], config["max_source_positions"]
    convolutions = 6 * d * (config["num_mel_bins"] * 2 * n + d * n)
    layer = 2 * n * (4 * d * d + 2 * d * h) + 4 * n * n * d
    return convolutions + config["encoder_layers"] * layer + config["decoder_layers"] * 4 * n * d * d


def decoder_bytes(config, weight_bytes):
    """Bytes that one token reads: the decoder's matrices, the table of the vocabulary, and the cross keys and values.

    Matrices of each layer: 4d² (self-attention), 2d² (cross-attention's queries and output) and 2dh, and the table vd,
    of ``weight_bytes`` each; cross keys and values 2nd in float32.
    """
    d, h, n = config["d_model"], config["decoder_ffn_dim"], config["max_source_positions"]
    matrices = config["decoder_layers"] * (6 * d * d + 2 * d * h) + config["vocab_size"] * d
    return matrices * weight_bytes + config["decoder_layers"] * 2 * n * d * 4
