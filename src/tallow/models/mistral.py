"""Mistral (Jiang et al. 2023, "Mistral 7B"): Llama's network, whose layers see a window."""

from tallow.models.decoder import decoder_spec
from tallow.models.llama import Llama
from tallow.models.spec import Export
from tallow.weights.adapters.gguf import GGUFNames, llama_rows

# In GGUF files a Mistral is a "llama", which models/llama.py reads.
SPEC = decoder_spec(Llama, "mistral", gguf=GGUFNames("llama", row_order=llama_rows), export=Export("Mistral"))
