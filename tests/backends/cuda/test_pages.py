"""A cache in pages against one of the CPU, whatever becomes of its rows."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.ops import KVCache
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import TOLERANCE, error, in_any_order, needs_gpu, numbers

pytestmark = needs_gpu
ROWS, CAPACITY, HEADS, D = 4, 150, 2, 32


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_rows_grow_shrink_change_places_and_are_repeated(data):
    cpu, card = (KVCache(ROWS, HEADS, D, CAPACITY, "float32", device) for device in ("cpu", "cuda"))
    in_any_order(card)
    for step in range(data.draw(st.integers(1, 6))):
        rows, held = cpu.batch, cpu.lengths.tolist()
        action = data.draw(st.sampled_from(["append", "append", "append to the first", "truncate", "select", "grow"]))
        if action == "grow":
            card = card.resized(card.capacity + 70)
        elif action.startswith("append"):
            part = rows if action == "append" else data.draw(st.integers(1, rows))
            counts = [data.draw(st.integers(0, min(70, CAPACITY - length))) for length in held[:part]]
            n = max(counts)
            k, v = (Tensor(numbers(part, n, HEADS, D, seed=2 * step + i)) for i in range(2))
            for cache in (cpu, card):
                to = cache if action == "append" else cache.rows(part)
                to.append(k.to(cache.device), v.to(cache.device), counts)
        elif action == "truncate":
            wanted = [data.draw(st.integers(0, length)) for length in held]
            cpu.truncate(wanted), card.truncate(wanted)
        else:
            order = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=ROWS))
            cpu.select(order), card.select(order)
        alike(cpu, card)


def alike(cpu, card):
    assert card.lengths.tolist() == card.held.tolist() == cpu.lengths.tolist()
    assert sorted(card.table.rows.flat) == list(range(card.table.rows.size))
    assert card.table.held.tolist() == card.table.rows.tolist()
    if not cpu.length:
        return
    for mine, other in zip(card.view()[:2], cpu.view()[:2], strict=True):
        for row, length in enumerate(cpu.lengths.tolist()):
            assert mine[row, :length].tolist() == other[row, :length].tolist()
    q = numbers(cpu.batch, 1, 2 * HEADS, D, seed=99)
    assert error(ops.attention(Tensor(q).to("cuda"), card), ops.attention(Tensor(q), cpu)) <= 2 * TOLERANCE["float32"]


def test_rows_that_change_places_are_not_copied():
    card = KVCache(3, HEADS, D, CAPACITY, "float32", "cuda")
    card.append(*(Tensor(numbers(3, 100, HEADS, D, seed=i)).to("cuda") for i in range(2)))
    before, keys = card.table.rows.copy(), card.keys.storage.copy()
    card.select([2, 0])
    assert card.table.rows[:2].tolist() == before[[2, 0]].tolist()
    assert np.array_equal(card.keys.storage.get(), keys.get())
