import threading
import time

import numpy as np
import pytest

from tallow.media.prefetch import side_by_side
from tallow.runtime.encoding import pipelined
from tests.ops.both import tensor


def test_batches_on_the_cpu_are_handed_out_one_by_one():
    begun = []

    def work(batch):
        begun.append(batch)
        return tensor(np.full(2, batch, np.float32))

    for batch, values in pipelined(work, range(4)):
        assert begun[-1] == batch
        assert values.tolist() == [batch, batch]


def counting(i, length, running, error=None):
    running.append(i)
    try:
        for j in range(length):
            time.sleep(0.001)
            yield i, j
        if error:
            raise error
    finally:
        running.remove(i)


def test_generators_run_side_by_side_and_come_in_order():
    running, most = [], 0
    found = []
    for items in side_by_side((counting(i, i % 4, running) for i in range(20)), 3, 2):
        most = max(most, len(running))
        found += items
    assert found == [(i, j) for i in range(20) for j in range(i % 4)]
    assert most <= 3
    assert running == []


def test_what_one_raises_comes_after_the_items_before_and_ends_all():
    running, found = [], []
    works = (counting(i, 3, running, ValueError("third") if i == 2 else None) for i in range(9))
    reader = side_by_side(works, 4, 8)

    def read():
        for items in reader:
            for item in items:
                found.append(item)

    with pytest.raises(ValueError, match="third"):
        read()
    assert found == [(i, j) for i in range(3) for j in range(3)]
    reader.close()
    for _ in range(100):
        if not running and not any(thread.name == "tallow-prefetch" for thread in threading.enumerate()):
            break
        time.sleep(0.01)
    assert running == []
