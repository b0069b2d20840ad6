"""Spans: they reach OpenTelemetry when the application uses it, and are nothing at all when it does not."""

import subprocess
import sys
import threading
import types

import pytest

from tallow.trace import logger, span


@pytest.fixture
def exported(monkeypatch):
    """A function that gives the spans finished so far, through OpenTelemetry's own SDK."""
    export = pytest.importorskip("opentelemetry.sdk.trace.export", reason="needs the extra dev (opentelemetry-sdk)")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    exporter = memory.InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter.get_finished_spans


def test_without_opentelemetry_a_span_is_one_shared_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    first = span("encode", seconds=30.0)
    assert first is span("decode")
    with first as inner, span("decode"):
        assert inner is None


def test_tallow_does_not_import_opentelemetry():
    code = "import sys, tallow.trace\nwith tallow.trace.span('x'): pass\nassert 'opentelemetry' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_span_goes_to_the_tracer_of_an_application_that_has_imported_the_api(monkeypatch):
    calls = []

    class Tracer:
        def start_as_current_span(self, name, attributes):
            calls.append((name, attributes))
            return memoryview(b"")  # any context manager

    api = types.SimpleNamespace(get_tracer=lambda name: calls.append(name) or Tracer())
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", api)
    with span("prefill", tokens=12):
        pass
    assert calls == ["tallow", ("tallow.prefill", {"tokens": 12})]


def test_spans_nest_and_carry_their_attributes(exported):
    with span("load", model="tiny", layers=4, seconds=0.5, quantized=False), span("encode"):
        pass
    encode, load = exported()
    assert (load.name, encode.name) == ("tallow.load", "tallow.encode")
    assert dict(load.attributes) == {"model": "tiny", "layers": 4, "seconds": 0.5, "quantized": False}
    assert encode.parent.span_id == load.context.span_id
    assert load.start_time <= encode.start_time <= encode.end_time <= load.end_time


def test_a_span_records_the_error_that_ends_it_and_lets_it_through(exported):
    with pytest.raises(KeyError), span("decode"):
        raise KeyError("lost")
    (found,) = exported()
    assert not found.status.is_ok
    assert [event.name for event in found.events] == ["exception"]


def test_each_thread_has_spans_of_its_own(exported):
    def work():
        with span("encode"):
            pass

    with span("load"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    encode, load = exported()
    assert encode.parent is None
    assert load.parent is None


def test_the_api_without_an_sdk_takes_spans_and_keeps_none():
    pytest.importorskip("opentelemetry.trace", reason="needs the extra dev (opentelemetry-sdk)")
    code = """
import opentelemetry.trace
from tallow.trace import span
with span("load", model="x") as current:
    assert not current.is_recording()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_messages_go_to_the_logger_tallow_and_nowhere_by_default():
    assert logger.name == "tallow"
    assert not logger.handlers
    assert logger.propagate
