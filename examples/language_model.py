"""A language model from one file: a text that goes on, printed as it is written, and texts compared by their vectors.

    python examples/language_model.py MODEL ["Once upon a time"]

MODEL is a GGUF file, a folder, or a name on the Hugging Face hub.
"""

import sys

import tallow as tl

model = sys.argv[1]
prompt = sys.argv[2] if len(sys.argv) > 2 else "Once upon a time"

llm = tl.load(model)

print(prompt, end="")
for piece in llm.generate(prompt, max_tokens=40, temperature=0, stream=True):
    print(piece, end="", flush=True)
print("\n")

texts = ["a dog barks", "a puppy yelps", "interest rates rise"]
vectors = llm.embed(texts)  # (3, dim), rows of length 1
for text, row in zip(texts, (vectors @ vectors.T).tolist(), strict=True):
    print(f"{text:20s}", "  ".join(f"{likeness:.2f}" for likeness in row))
