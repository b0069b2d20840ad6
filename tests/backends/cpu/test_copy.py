import numpy as np
import pytest

import tallow.backends.cpu  # noqa: F401
from tallow import _cpu


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000, 1 << 19, (5 << 20) + 13])
@pytest.mark.parametrize("at", [0, 3, 64])
def test_bytes_are_copied_and_no_others(size, at):
    source = np.random.default_rng(0).integers(0, 256, size + 1, np.uint8)
    source.flags.writeable = False
    target = np.zeros(size + 128, np.uint8)
    _cpu.copy_bytes(target[at : at + size], source[1:])
    assert np.array_equal(target[at : at + size], source[1:])
    assert not target[:at].any()
    assert not target[at + size :].any()


def test_arrays_that_do_not_fit_are_refused():
    bytes_ = np.zeros(10, np.uint8)
    for to, source in ((bytes_[:3], bytes_[:4]), (bytes_[::2], bytes_[:5]), (np.zeros(10, np.int8), bytes_)):
        with pytest.raises(ValueError, match=r"to|fit"):
            _cpu.copy_bytes(to, source)
