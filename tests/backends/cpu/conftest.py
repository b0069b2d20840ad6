import pytest

import tallow.backends.cpu  # noqa: F401
from tallow import _cpu


@pytest.fixture(params=_cpu.supported_levels())
def cpu_level(request):
    """Runs a test once with the kernels of each level that this processor has."""
    before = _cpu.level()
    _cpu.set_level(request.param)
    yield request.param
    _cpu.set_level(before)


@pytest.fixture
def threads():
    """A function that sets the number of threads for the rest of the test."""
    before = _cpu.get_num_threads()
    yield _cpu.set_num_threads
    _cpu.set_num_threads(before)
