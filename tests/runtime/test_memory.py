import os

import numpy as np
import pytest

from tallow.device import CPU, Device, cuda_device_count
from tallow.errors import DeviceError, WeightsError
from tallow.models import estimate
from tallow.models.checkpoint import open_checkpoint
from tallow.models.estimate import estimate_checkpoint, estimate_memory
from tallow.models.whisper import WhisperConfig
from tallow.models.whisper.spec import whisper_sizes
from tallow.runtime import memory
from tallow.runtime.memory import free_bytes
from tallow.weights.source import TensorInfo

from ..weights.ct2 import WHISPER_ALIASES, ct2_bytes, whisper_variables

TINY_EN = {
    "model_type": "whisper", "d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536,
    "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536, "vocab_size": 51864,
    "num_mel_bins": 80, "max_source_positions": 1500, "max_target_positions": 448,
}  # fmt: skip


def test_weights_are_the_published_number_of_parameters():
    """OpenAI's table says 39 M for tiny.en; Transformers counts 37,760,256 parameters, without zeros for k's bias."""
    estimate = estimate_memory(TINY_EN)
    assert estimate.weights == 4 * (37_760_256 + 12 * 384)
    assert estimate.total == sum(estimate)


def test_a_dataclass_and_a_dictionary_say_the_same():
    assert estimate_memory(WhisperConfig.from_dict(TINY_EN), "float16") == estimate_memory(TINY_EN, "float16")


def test_dtype_and_quantisation_are_about_the_matrices():
    full, half = estimate_memory(TINY_EN, "float32"), estimate_memory(TINY_EN, "bfloat16")
    small = estimate_memory(TINY_EN, quantize="int8")
    assert full.weights > half.weights > small.weights > full.weights / 4
    assert full[1:] == half[1:] == small[1:]


def test_batch_and_context():
    one = estimate_memory(TINY_EN)
    many = estimate_memory(TINY_EN, batch=5)
    assert many.weights == one.weights
    assert many.cache == 5 * one.cache
    assert one.activations < many.activations <= 5 * one.activations
    short = estimate_memory(TINY_EN, context=10)
    assert one.cache - short.cache == 4 * (448 - 10) * 2 * 4 * 384
    assert estimate_memory(TINY_EN, context=10**6) == one


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "gpt9"}, {"model_type": "whisper"}, TINY_EN | {"d_model": "384"}]
)
def test_configs_that_cannot_be_estimated(config):
    with pytest.raises(WeightsError):
        estimate_memory(config)


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "model.bin").write_bytes(ct2_bytes(whisper_variables(), WHISPER_ALIASES))
    (tmp_path / "config.json").write_text("{}")
    return open_checkpoint(tmp_path)


def test_a_checkpoint_says_how_its_matrices_are_stored(checkpoint):
    as_is = estimate_checkpoint(checkpoint)
    assert as_is == estimate_checkpoint(checkpoint, "float16") == estimate_memory(
        checkpoint.config, "float16"
    )  # fmt: skip
    assert as_is.weights < estimate_checkpoint(checkpoint, "float32").weights
    assert estimate_checkpoint(checkpoint, quantize="int8").weights < as_is.weights


def test_the_table_counts_what_a_checkpoint_holds(checkpoint):
    """Every parameter once: all tensors of the source but the alias of the embedding."""
    infos = {name: checkpoint.source.info(name) for name in checkpoint.source.names() if name != "proj_out.weight"}
    elements = sum(info.nbytes // info.dtype.itemsize for info in infos.values())
    sizes = whisper_sizes(checkpoint.config)
    assert sizes.matrices + sizes.tensors == elements + 8 * 4  # fused biases hold zeros for k: 2 + 1 layers, and cross


class TestFree:
    def test_this_machine(self):
        free = free_bytes(CPU)
        if not os.path.exists("/proc/meminfo"):
            assert free is None
        else:
            assert 0 < free < 1 << 50

    @pytest.mark.skipif(cuda_device_count() > 0, reason="there are cards")
    def test_a_card_that_is_not_there_cannot_be_told(self):
        with pytest.raises(DeviceError, match="no CUDA device"):
            free_bytes(Device("cuda"))

    def test_meminfo(self, tmp_path):
        (tmp_path / "meminfo").write_text("MemTotal:  10 kB\nMemAvailable:    7 kB\n")
        assert memory._meminfo("MemAvailable", str(tmp_path / "meminfo")) == 7 * 1024
        assert memory._meminfo("Other", str(tmp_path / "meminfo")) is None
        assert memory._meminfo("Other", str(tmp_path / "absent")) is None

    def group(self, root, path, limit, usage, cached=0, names=("memory.max", "memory.current")):
        folder = root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{usage}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 1\n")

    def test_version_two_groups_with_a_limit_on_a_parent(self, tmp_path):
        self.group(tmp_path, "a", 1000, 400, cached=99)
        self.group(tmp_path, "a/b", "max", 300)
        (tmp_path / "self").write_text("0::/a/b\n")
        assert memory._cgroup_rooms(str(tmp_path / "self"), str(tmp_path)) == [700]

    def test_version_one_groups(self, tmp_path):
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        self.group(tmp_path / "memory", "x", 500, 600, names=names)
        (tmp_path / "self").write_text("5:cpu,cpuacct:/x\n4:memory:/x\n")
        assert memory._cgroup_rooms(str(tmp_path / "self"), str(tmp_path)) == [0]

    def test_no_groups(self, tmp_path):
        assert memory._cgroup_rooms(str(tmp_path / "absent"), str(tmp_path)) == []

    def test_the_smallest_counts(self, monkeypatch):
        monkeypatch.setattr(memory, "_meminfo", lambda *_: 100)
        monkeypatch.setattr(memory, "_cgroup_rooms", lambda *_: [300, 50])
        assert free_bytes() == 50
        monkeypatch.setattr(memory, "_meminfo", lambda *_: None)
        monkeypatch.setattr(memory, "_cgroup_rooms", lambda *_: [])
        assert free_bytes() is None


QWEN3 = {
    "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 40960, "tie_word_embeddings": True,
}  # fmt: skip


def test_a_decoders_weights_are_the_published_number_of_parameters():
    """Qwen3-0.6B has 596,049,920 parameters, of which 65,536 are gains of norms, always float32."""
    half, full = estimate_memory(QWEN3, "bfloat16"), estimate_memory(QWEN3, "float32")
    assert full.weights - half.weights == 2 * (596_049_920 - 65_536)
    assert full.weights == pytest.approx(4 * 596_049_920, rel=1e-3)
    assert full.cache == 4 * 40960 * 2 * 28 * 8 * 128
    assert estimate_memory(QWEN3, context=2048).cache == full.cache // 20


def test_blocks_are_counted_as_they_will_be_stored():
    q4_0, iq4_nl = (TensorInfo((10, 64), np.dtype(np.uint8), 10 * 2 * 18, name) for name in ("q4_0", "iq4_nl"))
    assert estimate._stored_bytes(q4_0) == 10 * 2 * 18
    assert estimate._stored_bytes(iq4_nl) == 2 * 640
    assert estimate._stored_bytes(TensorInfo((10, 64), np.dtype(np.float16), 1280)) == 1280
