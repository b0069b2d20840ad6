"""Finds an architecture's ``SPEC`` by looking through this folder: no table names the models that there are."""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

from tallow.errors import WeightsError
from tallow.models.spec import Spec
from tallow.weights.source import short


def find_spec(model_type: object, where: str = "") -> Spec:
    """The entry of the architecture that Hugging Face calls ``model_type``.

    Args:
        model_type: such as ``"qwen3"``.
        where: what to begin the message of an error with.

    Raises:
        WeightsError: names those that there are, if there is no such architecture.
    """
    found = _first(str(model_type), lambda spec: model_type in spec.model_types)
    if found is None:
        raise WeightsError(f"{where}holds a model of type {short(model_type)}; Tallow has {', '.join(_known())}")
    return found


def find_class(model_type: str) -> Any:
    """The class of an architecture; see ``find_spec``."""
    return find_spec(model_type).model


def find_gguf(architecture: str, where: str) -> Spec:
    """The entry of the architecture that GGUF files call so. Args and errors as ``find_spec``'s."""
    found = _first(architecture, lambda spec: spec.gguf is not None and spec.gguf.architecture == architecture)
    if found is None:
        known = sorted({spec.gguf.architecture for spec in every_spec() if spec.gguf})
        raise WeightsError(
            f"{where}: holds a model of architecture {short(architecture)}; Tallow reads {', '.join(known)} from GGUF"
        )
    return found


def find_ctranslate2(name: str, where: str) -> Spec:
    """The entry of the architecture that CTranslate2's files call so. Args and errors as ``find_spec``'s."""
    found = _first(name.lower(), lambda spec: spec.ctranslate2 is not None and spec.ctranslate2.spec == name)
    if found is None:
        known = sorted(spec.ctranslate2.spec for spec in every_spec() if spec.ctranslate2)
        raise WeightsError(f"{where}: holds a {short(name)} of CTranslate2; Tallow reads {', '.join(known)}")
    return found


def every_spec() -> Iterator[Spec]:
    """All architectures."""
    for module in _modules():
        spec = getattr(importlib.import_module(module), "SPEC", None)
        if isinstance(spec, Spec):
            yield spec


def _known() -> list[str]:
    return sorted(name for spec in every_spec() for name in spec.model_types)


def _first(name: str, fits: Callable[[Spec], bool]) -> Spec | None:
    """The first entry that fits. Importing takes time: modules whose names begin as ``name`` does come first."""

    def shared(module: str) -> int:
        own = module.removeprefix(f"{__package__}.").replace(".", "_")
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(own, name, strict=False)))

    for module in sorted(_modules(), key=shared, reverse=True):
        spec = getattr(importlib.import_module(module), "SPEC", None)
        if isinstance(spec, Spec) and fits(spec):
            return spec
    return None


@functools.cache
def _modules() -> tuple[str, ...]:
    """The names of all modules in this folder and the folders in it, sorted."""
    here = os.path.dirname(__file__)
    found = []
    for item in pkgutil.iter_modules([here], f"{__package__}."):
        found.append(item.name)
        if item.ispkg:
            inner = os.path.join(here, item.name.rpartition(".")[2])
            found += [module.name for module in pkgutil.iter_modules([inner], item.name + ".")]
    return tuple(sorted(found))
