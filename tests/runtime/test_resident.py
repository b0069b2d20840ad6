import threading
import time

import pytest

from tallow.errors import ArgumentError
from tallow.runtime import resident
from tallow.runtime.resident import keep, unload, use


class Model:
    nbytes = 10

    def __init__(self):
        self.weights = object()

    def work(self, started, end):
        with use(self):
            started.set()
            end.wait(10)
            return self.weights


@pytest.fixture(autouse=True)
def nothing_loaded():
    unload()
    yield
    unload()


def in_threads(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


def test_the_same_key_gives_the_same_model():
    one = keep("a", "A", ("cpu",), Model)
    assert keep("a", "A", ("cpu",), Model) is one
    assert keep("b", "B", ("cpu",), Model) is not one
    assert [(r.name, r.options, r.nbytes) for r in resident.resident()] == [("A", ("cpu",), 10), ("B", ("cpu",), 10)]


def test_threads_that_ask_at_once_load_once():
    loads, results, waiting = [], [], threading.Event()

    def make():
        loads.append(1)
        waiting.wait(10)
        return Model()

    threads = in_threads(*[lambda: results.append(keep("a", "A", (), make))] * 4)
    while not loads:
        time.sleep(0.001)
    assert resident.resident() == []
    waiting.set()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(results) == 4
    assert len({id(model) for model in results}) == 1


def test_different_models_load_side_by_side():
    both = threading.Barrier(2, timeout=300)
    threads = in_threads(
        *[lambda key=key: keep(key, key, (), lambda: (both.wait(), Model())[1]) for key in "ab"]
    )  # fmt: skip
    for thread in threads:
        thread.join()
    assert len(resident.resident()) == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_load_is_not_remembered(error):
    def fail():
        raise error

    with pytest.raises(error):
        keep("a", "A", (), fail)
    assert resident.resident() == []
    assert isinstance(keep("a", "A", (), Model), Model)


def test_after_a_failed_load_the_next_in_line_tries():
    started, go, result = threading.Event(), threading.Event(), []

    def fail():
        started.set()
        go.wait(10)
        raise ValueError

    def first():
        with pytest.raises(ValueError):
            keep("a", "A", (), fail)

    threads = in_threads(first)
    started.wait(10)
    threads += in_threads(lambda: result.append(keep("a", "A", (), Model)))
    go.set()
    for thread in threads:
        thread.join()
    assert isinstance(result[0], Model)


def test_unload_waits_for_calls_in_flight():
    model = keep("a", "A", (), Model)
    started, end, done = threading.Event(), threading.Event(), threading.Event()
    results = []
    threads = in_threads(lambda: results.append(model.work(started, end)))
    started.wait(10)
    threads += in_threads(lambda: (unload(model), done.set()))
    while resident.resident():
        time.sleep(0.001)
    assert not done.wait(0.05)
    with pytest.raises(ArgumentError, match="unloaded"):
        model.work(started, end)
    end.set()
    for thread in threads:
        thread.join()
    assert done.is_set()
    assert results != [None]


def test_loading_again_waits_for_the_unload():
    model = keep("a", "A", (), Model)
    started, end, results = threading.Event(), threading.Event(), []
    threads = in_threads(lambda: model.work(started, end))
    started.wait(10)
    threads += in_threads(lambda: unload(model))
    while resident.resident():
        time.sleep(0.001)
    threads += in_threads(lambda: results.append(keep("a", "A", (), Model)))
    end.set()
    for thread in threads:
        thread.join()
    assert results[0] is not model


def test_unloading_frees_what_others_still_hold():
    model = keep("a", "A", (), Model)
    unload(model)
    assert vars(model) == {}
    with pytest.raises(ArgumentError, match="load it again"), use(model):
        pass
    with pytest.raises(ArgumentError, match="not a model that"):
        unload(model)
    assert keep("a", "A", (), Model) is not model


def test_a_listed_model_is_shown_in_one_line():
    keep("k", "name", ("cpu",), Model)
    assert repr(resident.resident()[0]) == "Resident(name='name', model=Model(…), options=('cpu',), nbytes=10)"


def test_unloading_everything():
    models = [keep(key, key, (), Model) for key in "abc"]
    unload()
    assert resident.resident() == []
    assert all(vars(model) == {} for model in models)


def test_models_that_are_not_kept_are_left_alone():
    model = Model()
    with use(model):
        assert model.weights
    with pytest.raises(ArgumentError):
        unload(model)


def test_calls_may_nest_and_fail():
    model = keep("a", "A", (), Model)
    with pytest.raises(ValueError), use(model), use(model):
        raise ValueError
    unload(model)
    assert resident.resident() == []


def test_ctrl_c_while_waiting_keeps_the_model(monkeypatch):
    model = keep("a", "A", (), Model)

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resident._changed, "wait_for", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unload(model)
    assert keep("a", "A", (), Model) is model
