"""A short run of ``tools/fuzz_weights.py``; the tool itself runs a million inputs."""

import pytest

fuzz_weights = pytest.importorskip("tools.fuzz_weights", reason="the tools are not in this tree")


@pytest.mark.parametrize("name", list(fuzz_weights.FORMATS))
def test_nothing_but_weights_errors(tmp_path, name):
    refused = fuzz_weights.fuzz([name], 400, seed=1, folder=tmp_path)
    assert 40 < refused < 400  # else the damage is too mild, or too coarse to reach past the first check


@pytest.mark.parametrize("name", list(fuzz_weights.FORMATS))
def test_the_undamaged_files_are_accepted(tmp_path, name):
    seeds, read, file = fuzz_weights.FORMATS[name]
    for data in seeds(tmp_path):
        (tmp_path / file).unlink(missing_ok=True)
        (tmp_path / file).write_bytes(data)
        assert not fuzz_weights.try_reader(read, tmp_path / file)
