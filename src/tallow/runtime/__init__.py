"""What models run on: decoding, caches, memory, models kept loaded."""
