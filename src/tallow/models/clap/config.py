"""What a CLAP checkpoint says of itself: the sizes of both encoders, and how sound becomes features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tallow.errors import WeightsError
from tallow.models.config_reader import ConfigReader

TRUNCATIONS = ("rand_trunc", "fusion")
PADDINGS = ("repeatpad", "repeat", "pad")


@dataclass(frozen=True)
class AudioConfig:
    """Sizes of HTSAT, the sound encoder, under the names that ``config.json`` has for them.

    Attributes:
        num_mel_bins: bands of a spectrogram.
        spec_size: side of the square that a spectrogram is folded into.
        patch_size: side of a patch of that square.
        window_size: side of the window that attention stays in, in patches.
        patch_embeds_hidden_size: width of the first stage; each stage doubles it.
        depths: blocks of each stage.
        num_attention_heads: heads in each stage.
        mlp_ratio: width inside a block's MLP, in widths of its stage.
        enable_fusion: whether three crops of a long recording are mixed into its summary.
        aff_block_r: by how much the mixing narrows its channels.
        layer_norm_eps: of the blocks' norms; the others have 1e-5.
    """

    num_mel_bins: int = 64
    spec_size: int = 256
    patch_size: int = 4
    window_size: int = 8
    patch_embeds_hidden_size: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_attention_heads: tuple[int, ...] = (4, 8, 16, 32)
    mlp_ratio: float = 4.0
    enable_fusion: bool = False
    aff_block_r: int = 4
    layer_norm_eps: float = 1e-5

    @property
    def hidden_size(self) -> int:
        """Width of the last stage."""
        return self.patch_embeds_hidden_size << len(self.depths) - 1

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> AudioConfig:
        """Take the sizes out of ``audio_config``. Raises WeightsError for what is senseless or computed otherwise."""
        reader = ConfigReader(config, "CLAP's audio_config")
        for key, value in {"hidden_act": "gelu", "qkv_bias": True, "enable_patch_layer_norm": True,
                           "patch_embed_input_channels": 1}.items():  # fmt: skip
            reader.expect(key, value)
        patch = reader.size("patch_size", 4)
        reader.expect("patch_stride", [patch, patch])
        found = cls(
            num_mel_bins=reader.size("num_mel_bins", 64),
            spec_size=reader.size("spec_size", 256),
            patch_size=patch,
            window_size=reader.size("window_size", 8),
            patch_embeds_hidden_size=reader.size("patch_embeds_hidden_size", 96),
            depths=reader.sizes("depths", (2, 2, 6, 2)),
            num_attention_heads=reader.sizes("num_attention_heads", (4, 8, 16, 32)),
            mlp_ratio=reader.real("mlp_ratio", 4.0),
            enable_fusion=reader.flag("enable_fusion", False),
            aff_block_r=reader.size("aff_block_r", 4),
            layer_norm_eps=reader.real("layer_norm_eps", 1e-5),
        )
        if found.enable_fusion and config.get("fusion_type") == "channel_map":
            raise WeightsError("config.json of a CLAP: fusion_type 'channel_map' is not computed; there is 'aff_2d'")
        found._check()
        reader.expect("hidden_size", found.hidden_size)
        return found

    def _check(self) -> None:
        stages, width = len(self.depths), self.patch_embeds_hidden_size
        heads = self.num_attention_heads
        if stages > 8 or len(heads) != stages or any(width * 2**i % n for i, n in enumerate(heads)):
            raise WeightsError(
                f"config.json of a CLAP: {len(heads)} num_attention_heads {heads} do not fit {stages} depths and a "
                f"first width of {width}"
            )
        least = self.patch_size * 2 ** (stages - 1) * self.window_size
        if self.spec_size % least or self.spec_size % self.num_mel_bins or self.spec_size > 4096:
            raise WeightsError(
                f"config.json of a CLAP: spec_size must be a multiple of num_mel_bins {self.num_mel_bins} and of "
                f"{least} (patch_size · window_size · 2 for each stage but one), at most 4096, found {self.spec_size}"
            )


@dataclass(frozen=True)
class TextConfig:
    """Sizes of RoBERTa, the text encoder, under the names that ``config.json`` has for them."""

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-12
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2

    @property
    def context(self) -> int:
        """Tokens of a text, at most: positions are counted from behind the padding's."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> TextConfig:
        """Take the sizes out of ``text_config``. Raises WeightsError for what is senseless or computed otherwise."""
        reader = ConfigReader(config, "CLAP's text_config")
        reader.expect("hidden_act", "gelu")
        vocab = reader.size("vocab_size", 50265)
        found = cls(
            vocab_size=vocab,
            hidden_size=reader.size("hidden_size", 768),
            num_hidden_layers=reader.size("num_hidden_layers", 12),
            num_attention_heads=reader.size("num_attention_heads", 12),
            intermediate_size=reader.size("intermediate_size", 3072),
            max_position_embeddings=reader.size("max_position_embeddings", 514),
            type_vocab_size=reader.size("type_vocab_size", 1),
            layer_norm_eps=reader.real("layer_norm_eps", 1e-12),
            bos_token_id=reader.index("bos_token_id", 0, vocab),
            pad_token_id=reader.index("pad_token_id", 1, vocab),
            eos_token_id=reader.index("eos_token_id", 2, vocab),
        )
        if found.hidden_size % found.num_attention_heads or found.context < 3:
            raise WeightsError(
                f"config.json of a CLAP: {found.num_attention_heads} heads must divide a width of {found.hidden_size}, "
                f"and {found.max_position_embeddings} positions must be 3 more than padding's {found.pad_token_id + 1}"
            )
        return found


@dataclass(frozen=True)
class ClapConfig:
    """Both encoders, and the width of the space that they share."""

    audio_config: AudioConfig = AudioConfig()
    text_config: TextConfig = TextConfig()
    projection_dim: int = 512
    projection_hidden_act: str = "relu"

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ClapConfig:
        """Read a ``config.json``. Raises WeightsError for what is senseless or computed otherwise."""
        reader = ConfigReader(config, "CLAP")
        return cls(
            audio_config=AudioConfig.from_dict(reader.section("audio_config")),
            text_config=TextConfig.from_dict(reader.section("text_config")),
            projection_dim=reader.size("projection_dim", 512),
            projection_hidden_act=reader.one_of("projection_hidden_act", ("relu", "gelu"), "relu"),
        )


@dataclass(frozen=True)
class FeatureConfig:
    """How sound becomes a spectrogram, under the names that Transformers' feature extractor has for its settings.

    Attributes:
        feature_size: mel bands.
        sampling_rate: samples a second.
        hop_length: samples from one frame to the next.
        fft_window_size: samples in a frame.
        max_length_s: seconds of a clip.
        frequency_min: lowest frequency, in Hz.
        frequency_max: highest frequency, in Hz.
        truncation: what becomes of longer recordings: ``"rand_trunc"`` takes one clip out of them, ``"fusion"`` a
            summary of the whole and three clips. It also says which mel bands the model was trained with, Slaney's or
            HTK's.
        padding: what becomes of shorter ones: ``"repeatpad"`` repeats them while they fit whole, ``"repeat"`` until the
            clip is full, ``"pad"`` leaves them as they are; the rest is silence.
    """

    feature_size: int = 64
    sampling_rate: int = 48_000
    hop_length: int = 480
    fft_window_size: int = 1024
    max_length_s: int = 10
    frequency_min: float = 0.0
    frequency_max: float = 14_000.0
    truncation: str = "fusion"
    padding: str = "repeatpad"

    @property
    def clip(self) -> int:
        """Samples of a clip."""
        return self.max_length_s * self.sampling_rate

    @property
    def frames(self) -> int:
        """Frames of a clip's spectrogram."""
        return self.clip // self.hop_length + 1

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], file: str = "preprocessor_config.json") -> FeatureConfig:
        """Take the settings out of a file. Raises WeightsError for what is senseless."""
        reader = ConfigReader(config, "CLAP's feature extractor", file)
        low = reader.config.get("frequency_min", 0)
        found = cls(
            feature_size=reader.size("feature_size", 64),
            sampling_rate=reader.size("sampling_rate", 48_000),
            hop_length=reader.size("hop_length", 480),
            fft_window_size=reader.size("fft_window_size", 1024),
            max_length_s=reader.size("max_length_s", 10),
            frequency_min=0.0 if low == 0 else reader.real("frequency_min", 0),
            frequency_max=reader.real("frequency_max", 14_000),
            truncation=reader.one_of("truncation", TRUNCATIONS, "fusion"),
            padding=reader.one_of("padding", PADDINGS, "repeatpad"),
        )
        fits = found.fft_window_size <= found.clip <= 2**26 and found.hop_length <= found.clip
        if not fits or not found.frequency_min < found.frequency_max <= found.sampling_rate / 2:
            raise WeightsError(f"{file} of a CLAP: these settings do not fit each other: {found}")
        return found
