import multiprocessing
import os
import threading
import time

import pytest

from tallow.errors import ArgumentError
from tallow.nn import Module
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


def test_a_call_in_flight_may_make_more_calls_while_it_is_waited_for():
    model, other = keep("a", "A", (), Model), keep("b", "B", (), Model)
    started, go, results = threading.Event(), threading.Event(), []

    def call():
        with use(model):
            started.set()
            go.wait(10)
            with use(model):
                results.append(model.weights)
            results.append(model.weights)

    threads = in_threads(call)
    started.wait(10)
    threads += in_threads(lambda: unload(model))
    while len(resident.resident()) > 1:
        time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(results) == 2
    assert vars(model) == {}
    assert [listed.model for listed in resident.resident()] == [other]


@pytest.mark.parametrize("every", [True, False])
def test_unload_inside_a_call_does_not_wait_for_itself(every):
    model = keep("a", "A", (), Model)
    with use(model), pytest.raises(ArgumentError, match="inside a call"):
        unload(None if every else model)
    assert keep("a", "A", (), Model) is model
    unload(model)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_wait_for_its_parents_threads():
    model = keep("a", "A", (), Model)
    started, end, making, made = (threading.Event() for _ in range(4))

    def make():
        making.set()
        made.wait(10)
        return Model()

    threads = in_threads(lambda: model.work(started, end), lambda: keep("b", "B", (), make))
    started.wait(10)
    making.wait(10)
    child = multiprocessing.get_context("fork").Process(target=lambda: (unload(model), keep("b", "B", (), Model)))
    child.start()
    child.join(10)
    code = child.exitcode
    child.kill()
    end.set()
    made.set()
    for thread in threads:
        thread.join()
    assert code == 0
    assert model.weights


def test_what_an_unloaded_model_lacks_is_told():
    class Part(Module):
        def __init__(self):
            self.weight = 1

        @property
        def broken(self):
            return self.weight.nothing

    part = keep("a", "A", (), Part)
    with pytest.raises(AttributeError, match="'Part' object has no attribute 'other'"):
        part.other  # noqa: B018
    with pytest.raises(AttributeError, match="'int' object has no attribute 'nothing'"):
        part.broken  # noqa: B018
    unload(part)
    with pytest.raises(ArgumentError, match="unloaded; load it again"):
        part.weight  # noqa: B018
    assert getattr(part, "weight", None) is None
