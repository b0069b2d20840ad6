"""What both sides of the benchmarks of an NVIDIA GPU work on: the models' published sizes, and how much of it."""

PROMPT, WRITTEN, READ = 128, 64, 2048  # tokens of a language model
WINDOWS, TOKENS = (1, 16), 100  # Whisper's windows of 30 seconds, and the tokens of each
BATCH = {"dinov3": 64, "clap": 32}
TURBO = {
    "vocab_size": 51866, "num_mel_bins": 128, "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120, "decoder_layers": 4, "decoder_attention_heads": 20, "decoder_ffn_dim": 5120,
    "max_target_positions": 448,
}  # fmt: skip
LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "patch_size": 16, "image_size": 224, "num_register_tokens": 4,
}  # fmt: skip
