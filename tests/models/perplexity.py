"""What tests of quantised language models share: real weights widened to float32, and a page of text."""

from pathlib import Path

import numpy as np

from tallow.models.checkpoint import open_checkpoint
from tallow.models.registry import find_class
from tallow.weights.var_builder import VarBuilder

PAGE = (Path(__file__).parents[2] / "bench" / "prose.txt").read_text()
TOKENS = 1200


class Widened:
    """A source whose matrices in blocks are given in float32."""

    def __init__(self, source):
        self.source, self.where = source, source.where
        self.names, self.release = source.names, source.release

    def info(self, name):
        info = self.source.info(name)
        return info and info._replace(dtype=np.dtype(np.float32), nbytes=4 * int(np.prod(info.shape)), blocks=None)

    def read(self, name):
        array = self.source.read(name)
        return array if isinstance(array, np.ndarray) else array.dequantize()


def load(path, widened=True, **options):
    """The model of a file, its weights widened to float32 before anything is done with them."""
    checkpoint = open_checkpoint(path)
    source = Widened(checkpoint.source) if widened else checkpoint.source
    return find_class(checkpoint.architecture).from_checkpoint(checkpoint, VarBuilder(source, **options))


def perplexity(model):
    """How well a model predicts the page's first tokens."""
    return model.score(model.tokenizer.encode(PAGE)[:TOKENS]).perplexity
