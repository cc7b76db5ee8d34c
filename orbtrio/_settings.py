"""The kinds of settings there are: how each is read from text, checked, and shown.

A setting is an attrs field made by `setting`. Whatever is assigned to it, by keyword or by a program that
reads its surroundings, passes through its kind, so there is one place that refuses and one wording. A kind
never repeats the value of a secret. Engine and toolkit each have a class of such settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

import attrs
import click

from orbtrio.errors import ConfigError

__all__ = [
    "FLAG",
    "PAIRS",
    "PATH",
    "TEXT",
    "TEXTS",
    "Kind",
    "Setting",
    "choice",
    "seconds",
    "setting",
    "size",
    "whole",
]

_N = TypeVar("_N", int, float)

_UNITS: Final = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_SIZE: Final = re.compile(r"(\d+)\s*([a-z]*)", re.ASCII | re.IGNORECASE)
_FOREVER: Final = 1e9
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


@attrs.frozen
class Kind:
    """What the settings of one kind have in common.

    Attributes:
        metavar: What help calls a value.
        parse: Text, from the environment, a flag or a file, to something that `accept` takes.
        accept: A Python value to the one that is kept.
        show: A kept value as text that `parse` takes.

    `parse` and `accept` raise `ValueError` with what was expected.
    """

    metavar: str
    parse: Callable[[str], Any]
    accept: Callable[[Any], Any]
    show: Callable[[Any], str] = str


@attrs.frozen
class Setting:
    """One setting.

    Attributes:
        name: Its attribute and its key in a file.
        env: Its environment variable.
        help: One sentence.
        kind: How it is read.
        default: If nothing else is said.
        secret: Whether its value must not be shown, nor given on a command line, which other users can see.
    """

    name: str
    env: str
    help: str
    kind: Kind
    default: Any = None
    secret: bool = False

    @classmethod
    def of(cls, field: attrs.Attribute[Any]) -> Setting:
        """The setting behind an attrs field."""
        return attrs.evolve(cast("Setting", field.metadata[_KEY]), name=field.name)

    @property
    def flag(self) -> str | None:
        """Its command line option."""
        return None if self.secret else "--" + self.name.replace("_", "-")

    @property
    def shown_default(self) -> str:
        """The default as people write it; nothing if there is none, or it is a secret."""
        return "" if self.default is None or self.secret else self.kind.show(self.default)

    def option(self) -> click.Option:
        """Its command line option, for a setting that has one; a text or None comes out of it."""
        default = self.shown_default
        help = f"{self.help}  [{self.env}" + (f"; default: {default}]" if default else "]")
        if self.kind is FLAG:
            return click.Option([self.flag or ""], help=help, is_flag=True, flag_value="true", type=str)
        return click.Option([self.flag or ""], help=help, metavar=self.kind.metavar)

    def accept(self, value: Any) -> Any:
        """Check a Python value.

        Raises:
            ConfigError: it cannot work; says which setting, and what was expected.
        """
        if value is None and self.default is None:
            return None
        try:
            return self.kind.accept(value)
        except ValueError as error:
            raise self.error(str(error), value) from None

    def parse(self, text: str) -> Any:
        """Read a value from text.

        Raises:
            ConfigError: as `accept`.
        """
        try:
            return self.kind.accept(self.kind.parse(text))
        except ValueError as error:
            raise self.error(str(error), text) from None

    def error(self, problem: str, value: Any) -> ConfigError:
        """Why a value is refused; without the value, if it is a secret."""
        found = "" if self.secret else f", not {value!r:.80}"
        return ConfigError(f"{self.name} ({self.env}): {problem}{found}")


_KEY: Final = "orbtrio"


def setting(kind: Kind, default: Any, env: str, help: str, *, secret: bool = False) -> Any:
    """An attrs field for a setting; None as the default means that it may be absent."""
    metadata = {_KEY: Setting("", env, help, kind, default, secret)}
    return attrs.field(
        default=default,
        converter=attrs.Converter(_accept, takes_field=True),
        repr=_hide if secret else True,
        metadata=metadata,
    )


def _accept(value: Any, field: attrs.Attribute[Any]) -> Any:
    return Setting.of(field).accept(value)


def _hide(value: Any) -> str:
    return "'***'" if value else repr(value)


# --- Numbers ------------------------------------------------------------------------------------------------


def whole(least: int, most: int | None = None) -> Kind:
    """Whole numbers within bounds."""
    expected = f"expected a whole number from {least} " + ("upwards" if most is None else f"to {most}")

    def parse(text: str) -> int:
        return _number(int, text, expected)

    def accept(value: Any) -> int:
        if type(value) is not int or value < least or (most is not None and value > most):
            raise ValueError(expected)
        return value

    return Kind("N", parse, accept)


def size(least: int) -> Kind:
    """Numbers of bytes, at least `least`; as text also with a unit, ``32 MiB``."""
    expected = f"expected a size from {least} bytes upwards, such as 1048576 or 1 MiB"

    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text.strip())
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError(expected)
        return _number(int, match[1], expected) * _UNITS[match[2].lower()]

    def accept(value: Any) -> int:
        if type(value) is not int or value < least:
            raise ValueError(expected)
        return value

    return Kind("SIZE", parse, accept, _show_size)


def _show_size(value: int) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value and not value % _UNITS[unit.lower()]:
            return f"{value // _UNITS[unit.lower()]} {unit}"
    return f"{value} B"


def _parse_seconds(text: str) -> float:
    return _number(float, text.strip().removesuffix("s"), "expected seconds, such as 0.5 or 30")


def seconds(*, zero: bool = False) -> Kind:
    """Durations; zero only if asked for, and never without end."""
    expected = "expected seconds, " + ("zero or more" if zero else "more than zero")

    def accept(value: Any) -> float:
        if type(value) not in (int, float) or not 0 <= value < _FOREVER or (value == 0 and not zero):
            raise ValueError(expected)
        return float(value)

    return Kind("SECONDS", _parse_seconds, accept, lambda value: f"{value:g} s")


def _number(kind: Callable[[str], _N], text: str, expected: str) -> _N:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(expected) from None


# --- Text ---------------------------------------------------------------------------------------------------


def _accept_text(value: Any) -> str:
    if type(value) is not str or not value.strip():
        raise ValueError("expected text")
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes of the environment that are no UTF-8
        raise ValueError("expected UTF-8") from None
    return value


def _parse_texts(text: str) -> list[str]:
    return [part for part in map(str.strip, re.split(r"[,\n]", text)) if part]


def _accept_texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str | Mapping):
        raise ValueError("expected a list of texts")
    try:
        return tuple(map(_accept_text, value))
    except TypeError:
        raise ValueError("expected a list of texts") from None


# The last equals sign divides: a token in base64 may end with some, a tenant has none.
def _parse_pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for number, part in enumerate(_parse_texts(text), 1):
        key, equals, value = map(str.strip, part.rpartition("="))
        if not (key and equals and value):
            raise ValueError(f"expected pairs such as a=b,c=d; number {number} is none")
        if key in pairs:
            raise ValueError(f"expected each key once; that of pair {number} stands there twice")
        pairs[key] = value
    return pairs


def _accept_pairs(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("expected pairs of texts")
    return MappingProxyType({_accept_text(key): _accept_text(value[key]) for key in value})


TEXT: Final = Kind("TEXT", str, _accept_text)
TEXTS: Final = Kind("TEXT,...", _parse_texts, _accept_texts, ", ".join)
PAIRS: Final = Kind(
    "A=B,...", _parse_pairs, _accept_pairs, lambda pairs: ", ".join(f"{key}={pairs[key]}" for key in pairs)
)


def choice(*values: str) -> Kind:
    """One of several words, in whatever case."""

    def accept(value: Any) -> str:
        if type(value) is not str or value.lower() not in values:
            raise ValueError(f"expected one of {', '.join(values)}")
        return value.lower()

    return Kind("|".join(values), str, accept)


# --- Paths and flags ----------------------------------------------------------------------------------------


def _accept_path(value: Any) -> Path:
    try:
        path = Path(value).expanduser()
        str(path).encode()
    except (RuntimeError, TypeError, ValueError):
        raise ValueError("expected a path, in UTF-8") from None
    return path


def _parse_flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("expected true or false")
    return word in _TRUE


def _accept_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("expected true or false")
    return value


PATH: Final = Kind("PATH", str, _accept_path)
FLAG: Final = Kind("", _parse_flag, _accept_flag, lambda value: "on" if value else "off")
