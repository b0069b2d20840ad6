"""Logging and spans.

Messages go to the standard logger ``tallow``. Spans (load, encode, prefill, decode, …) reach OpenTelemetry when the
application has imported its API, and cost one dictionary look-up when it has not.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

logger = logging.getLogger("tallow")
_NO_SPAN: AbstractContextManager[None] = nullcontext()


def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """A context manager that traces a stretch of work as ``tallow.<name>``.

    Args:
        name: what is done, such as ``"encode"``.
        attributes: figures to attach, such as ``tokens=12``; str, bool, int or float.
    """
    telemetry = sys.modules.get("opentelemetry.trace")
    if telemetry is None:
        return _NO_SPAN
    tracer = telemetry.get_tracer("tallow")
    return tracer.start_as_current_span(f"tallow.{name}", attributes=attributes)  # type: ignore[no-any-return]
