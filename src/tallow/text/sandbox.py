"""Jinja2's sandbox with Transformers' settings, and with limits on what a template may take.

Every loop, call, filter and joining of strings in a template passes through ``_Limits``: the template's syntax tree is
rewritten so before it is compiled.
"""

from __future__ import annotations

import contextvars
import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from tallow.errors import TemplateError

MOST_STEPS = 5_000_000
MOST_SECONDS = 10.0
MOST_SIZE = 20_000_000  # characters of a string, items of a list
_WIDE = re.compile(r"\d{6}|%[-+ #0\d.]*\*|\{[^{}:]*:[^{}]*\{")  # widths of many digits, or given by an argument
_LIMIT = "limited by tallow"  # a filter's name that no template can write


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Render a template. Raises TemplateError for whatever goes wrong in it."""
    limits = _Limits()
    token = _current.set(limits)
    try:
        return limits.check(_compiled(source).render(variables))  # type: ignore[no-any-return]
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"chat template: line {error.lineno}: {error.message}") from None
    except jinja2.TemplateError as error:
        raise TemplateError(f"chat template: {error.message or type(error).__name__}") from None
    except TemplateError:
        raise
    except RecursionError:
        raise TemplateError("chat template: calls itself too deep") from None
    except MemoryError:
        raise TemplateError("chat template: builds more than there is memory for") from None
    except Exception as error:  # whatever a template may provoke: TypeError, KeyError, …
        raise TemplateError(f"chat template: {type(error).__name__}: {error}") from None
    finally:
        _current.reset(token)


@functools.lru_cache(maxsize=32)
def variables(source: str) -> frozenset[str]:
    """The names of variables that a template reads, its own among them. Raises TemplateError for a damaged one."""
    try:
        found = _environment().parse(source).find_all(nodes.Name)
        return frozenset(name.name for name in found if name.ctx == "load")
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"chat template: line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise TemplateError("chat template: calls itself too deep") from None


class _Limits:
    """What one rendering has used up."""

    def __init__(self) -> None:
        self.steps = 0
        self.written = 0
        self.end = time.monotonic() + MOST_SECONDS

    def step(self) -> None:
        """Count one step."""
        self.steps += 1
        if self.steps > MOST_STEPS or (self.steps % 256 == 0 and time.monotonic() > self.end):
            raise TemplateError(f"chat template: took more than {MOST_STEPS:,} steps or {MOST_SECONDS:.0f} s")

    def check(self, value: Any) -> Any:
        """Count one step, and refuse a value that has grown too large, with all that is in it."""
        self.step()
        size, rest = 0, [value]
        while rest:
            item = rest.pop()
            if isinstance(item, (list, tuple)):
                rest.extend(item)
                size += len(item)
            elif isinstance(item, dict):
                rest.extend(item.values())
                size += len(item)
            elif isinstance(item, str):
                size += len(item)
            self.room(size)
        return value

    def room(self, size: int) -> None:
        """Refuse to build something of that size."""
        if size > MOST_SIZE:
            raise TemplateError(f"chat template: builds a value of more than {MOST_SIZE:,} characters or items")

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        """Count every turn of a loop."""
        for value in values:
            self.step()
            yield value


_current: contextvars.ContextVar[_Limits] = contextvars.ContextVar("limits of the chat template")


# ruff: noqa: N802  (the visitor finds its methods by the names of the nodes)
class _Limited(NodeTransformer):
    """Puts loops, calls, filters and joined strings of a syntax tree through the limits."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "each")  # type: ignore[arg-type]
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self.generic_visit(node)
        node.node = node.node and _filtered(node.node, "check")
        return _filtered(node, "check")

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_filtered(part, "check") for part in node.nodes]
        return _filtered(node, "check")

    def visit_Add(self, node: nodes.Add) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "check")


def _filtered(node: nodes.Expr, what: str) -> nodes.Filter:
    args: list[nodes.Expr] = [nodes.Const(what, lineno=node.lineno)]
    return nodes.Filter(node, _LIMIT, args, [], None, None, lineno=node.lineno)


class _Sandbox(ImmutableSandboxedEnvironment):
    """No mutation, no private attributes, no arithmetic that explodes."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        limits = _current.get()
        limits.check((left, right))
        if operator == "*":
            for sequence, count in ((left, right), (right, left)):
                if isinstance(sequence, (str, list, tuple, bytes)) and isinstance(count, int):
                    limits.room(len(sequence) * count)
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            limits.room(left.bit_length() * (right if operator == "**" else 1) + right.bit_length())
        if operator == "%" and isinstance(left, str):
            _guard("format", left, right if isinstance(right, tuple) else (right,))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        given = (*args, *kwargs.values())
        limits = _current.get()
        limits.check(given)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _guard(getattr(__obj, "__name__", ""), owner, given)
        return limits.check(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        return None if wrapped is None else functools.partial(_format, wrapped, value.__self__)


def _format(wrapped: Callable[..., str], form: str, *args: Any, **kwargs: Any) -> str:
    _guard("format", form, (*args, *kwargs.values()))
    return wrapped(*args, **kwargs)


def _guard(name: str, value: Any, args: Sequence[Any]) -> None:
    """Refuse a method of strings or a filter before it builds something too large."""
    limits = _current.get()
    widest = max((abs(arg) for arg in args if isinstance(arg, int)), default=0)
    length = len(value) if isinstance(value, (str, list, tuple, dict)) else 1
    if name in ("center", "ljust", "rjust", "zfill", "batch", "slice"):
        limits.room(widest)
    elif name in ("expandtabs", "indent", "tojson"):
        limits.room((length + 1) * widest)
    elif name == "replace" and len(args) > 1:
        limits.room((length + 1) * len(str(args[1])))
    elif name == "join" and args:  # the method of a separator, or the filter of a list
        items, separator = (args[0], value) if isinstance(value, str) else (value, args[0])
        if isinstance(items, (list, tuple)):
            limits.room(len(items) * len(str(separator)))
    elif name == "format" and _WIDE.search(str(value).replace("{{", "")):
        raise TemplateError("chat template: formats with a width that is too large, or an argument")


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is guarded."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _guard(name, args[first], (*args[first + 1 :], *kwargs.values()))
        return function(*args, **kwargs)

    return call


class _Generation(Extension):
    """``{% generation %}…{% endgeneration %}``: marks what the assistant says; here it changes nothing."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_say"), [], [], body).set_lineno(line)

    def _say(self, caller: Any) -> Any:
        return caller()


class _Dict:
    """``dict(…)`` for templates, which gives dictionaries and no way to the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As ``dict.fromkeys``."""
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """``namespace(…)`` that takes no private names."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace takes no private name such as {name!r}")


def _refuse(message: Any) -> None:
    raise jinja2.TemplateError(str(message))


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


@jinja2.pass_context
def _limited(context: Any, value: Any, what: str) -> Any:
    return getattr(_current.get(), what)(value)  # asks for the context so that it is never run while compiling


@jinja2.pass_context
def _finalize(context: Any, value: Any) -> Any:
    limits = _current.get()
    limits.check(value)
    limits.written += len(value) if isinstance(value, str) else 0
    limits.room(limits.written)
    return value


@functools.cache
def _environment() -> _Sandbox:
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
        optimized=False,  # constants would be computed before there are limits
        finalize=_finalize,
    )
    environment.filters["tojson"] = _tojson
    for name in ("batch", "center", "format", "indent", "join", "replace", "slice", "tojson"):
        environment.filters[name] = _guarded(name, environment.filters[name])
    environment.filters[_LIMIT] = _limited
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now, "dict": _Dict(), "namespace": _Namespace}
    return environment


@functools.lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    environment = _environment()
    return environment.from_string(_Limited().visit(environment.parse(source)))
