"""What runs language models: the loop, its requests, sampling, grammars, the cache and the recorded step."""
