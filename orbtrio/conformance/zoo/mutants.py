"""What is wrong with whom: the registry of the zoo's faulty programs.

A faulty program is a subclass of a model that overrides as little as possible. Faults of one role can be put
together in one program, `compose`, as long as no two of them override the same thing. Each names the cases
that have to notice it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from orbtrio.conformance import zoo
from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo.engine import ModelEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Mutant", "compose", "mutant", "mutants"]

Faulty = TypeVar("Faulty", bound=type[Any])

_mutants: Final[dict[str, Mutant]] = {}


@attrs.frozen(kw_only=True)
class Mutant:
    """One fault.

    Attributes:
        name: What it is called by on a command line: ``"debounced-timer"``.
        description: The fault, as somebody would meet it.
        role: What it is an example of.
        kills: The cases that are expected to notice it.
        faulty: The class, a `Target`.
    """

    name: str
    description: str
    role: Role
    kills: tuple[str, ...]
    faulty: type[Any]


def mutant(
    name: str, *, kills: tuple[str, ...], role: Role | str = Role.ENGINE
) -> Callable[[Faulty], Faulty]:
    """Register a class as a fault. Its docstring is the description."""

    def register(faulty: Faulty) -> Faulty:
        if name in _mutants:
            raise ValueError(f"there is a mutant {name!r} already")
        description = " ".join((faulty.__doc__ or "").split())
        if not description or not kills:
            raise ValueError(f"mutant {name!r} needs a docstring, and a case that kills it")
        _mutants[name] = Mutant(
            name=name, description=description, role=Role(role), kills=kills, faulty=faulty
        )
        return faulty

    return register


def mutants(role: Role | None = None) -> Mapping[str, Mutant]:
    """All faults, by name, or those of one role. Looks into each module ``zoo.faulty_*``."""
    for module in pkgutil.iter_modules(zoo.__path__):
        if module.name.startswith("faulty_"):
            importlib.import_module(f"{zoo.__name__}.{module.name}")
    return {name: known for name, known in _mutants.items() if role in (None, known.role)}


def compose(names: Iterable[str], model: type[Any] = ModelEngine) -> type[Any]:
    """A class that has all these faults; without any, the model itself.

    Raises:
        ValueError: there is no such fault, or two of them are about the same thing.
    """
    known = mutants()
    classes: list[type[Any]] = []
    taken: dict[str, str] = {}
    for name in names:
        if name not in known or not issubclass(known[name].faulty, model):
            raise ValueError(f"there is no mutant {name!r} of {model.__name__}")
        for attribute in _overridden(known[name].faulty, model):
            if attribute in taken:
                raise ValueError(f"{name!r} and {taken[attribute]!r} both change {attribute}")
            taken[attribute] = name
        classes.append(known[name].faulty)
    return type("Composed", (*classes, model), {}) if classes else model


def _overridden(faulty: type[Any], model: type[Any]) -> set[str]:
    changed = {
        name for ancestor in faulty.__mro__ if ancestor not in model.__mro__ for name in vars(ancestor)
    }
    return {name for name in changed if not name.startswith("__") or name == "__init__"}
