"""The kinds of settings: what each takes, from text and from Python, and how it is shown."""
# ruff: noqa: RUF009 (`setting` makes attrs fields, not default values)

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbtrio._settings import (
    FLAG,
    PAIRS,
    PATH,
    TEXT,
    TEXTS,
    Kind,
    Setting,
    choice,
    seconds,
    setting,
    size,
    whole,
)
from orbtrio.errors import ConfigError

KINDS = [
    FLAG,
    PAIRS,
    PATH,
    TEXT,
    TEXTS,
    choice("a", "b"),
    seconds(),
    seconds(zero=True),
    size(1),
    whole(1, 9),
]


def parse(kind: Kind, text: str) -> Any:
    return kind.accept(kind.parse(text))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole(0, 65535), "0", 0),
        (whole(0, 65535), " 65535 ", 65535),
        (size(1), "1", 1),
        (size(1), "1024 B", 1024),
        (size(1), "64KiB", 65536),
        (size(1), "32 mib", 33554432),
        (size(0), "0", 0),
        (size(1), "2 TiB", 2 << 40),
        (seconds(), "0.5", 0.5),
        (seconds(), "300 s", 300.0),
        (seconds(), "1e2", 100.0),
        (seconds(zero=True), "0", 0.0),
        (TEXT, "any thing", "any thing"),
        (TEXTS, "a, b ,,c", ("a", "b", "c")),
        (TEXTS, "*", ("*",)),
        (TEXTS, "", ()),
        (PAIRS, "a=b, c=d", {"a": "b", "c": "d"}),
        (PAIRS, "dG9rZW4==tenant\nx=y\n", {"dG9rZW4=": "tenant", "x": "y"}),
        (PAIRS, "", {}),
        (PATH, "/a/b", Path("/a/b")),
        (PATH, "~/b", Path.home() / "b"),
        (FLAG, "1", True),
        (FLAG, "Yes", True),
        (FLAG, "off", False),
        (choice("debug", "info"), "DEBUG", "debug"),
    ],
)
def test_text_that_is_understood(kind: Kind, text: str, value: object) -> None:
    assert parse(kind, text) == value
    assert parse(kind, kind.show(parse(kind, text))) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (whole(0, 65535), "65536"),
        (whole(0, 65535), "-1"),
        (whole(0, 65535), "1.0"),
        (whole(0, 65535), "many"),
        (whole(0), "1" * 5000),
        (size(1024), "1 KB"),
        (size(1024), "1023"),
        (size(1024), "-1 MiB"),
        (size(1024), "1.5 MiB"),
        (size(1), "1" * 5000),
        (seconds(), "0"),
        (seconds(), "-1"),
        (seconds(zero=True), "-0.1"),
        (seconds(), "nan"),
        (seconds(), "inf"),
        (seconds(), "1e400"),
        (seconds(), "soon"),
        (TEXT, ""),
        (TEXT, "  "),
        (TEXT, "\udcff"),
        (TEXTS, "a,\udcff"),
        (PAIRS, "a"),
        (PAIRS, "a="),
        (PAIRS, "=b"),
        (PAIRS, "a=b,a=c"),
        (PATH, "/\udcff"),
        (PATH, "~no-such-user-on-any-machine/x"),
        (FLAG, "perhaps"),
        (choice("debug", "info"), "loud"),
    ],
)
def test_text_that_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected"):
        parse(kind, text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (whole(0), True),
        (whole(0), 1.0),
        (whole(0), "1"),
        (size(0), False),
        (size(0), "1"),
        (seconds(), True),
        (seconds(), "1"),
        (seconds(), 10**400),
        (TEXT, b"x"),
        (TEXTS, "abc"),
        (TEXTS, {"a": "b"}),
        (TEXTS, ["a", 1]),
        (TEXTS, 1),
        (PAIRS, [("a", "b")]),
        (PAIRS, {"a": 1}),
        (PAIRS, {1: "a"}),
        (PATH, 1),
        (FLAG, 1),
        (FLAG, "yes"),
        (choice("a"), 1),
    ],
)
def test_python_values_are_not_coerced(kind: Kind, value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected"):
        kind.accept(value)


def test_collections_are_kept_as_their_own() -> None:
    texts, pairs = ["a"], {"a": "b"}
    kept_texts, kept_pairs = TEXTS.accept(texts), PAIRS.accept(pairs)
    texts.append("b")
    pairs["c"] = "d"
    assert kept_texts == ("a",)
    assert kept_pairs == {"a": "b"}
    with pytest.raises(TypeError):
        kept_pairs["c"] = "d"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (1000, "1000 B"), (1024, "1 KiB"), (3 << 20, "3 MiB"), (8 << 30, "8 GiB")],
)
def test_sizes_are_shown_in_their_largest_unit(value: int, shown: str) -> None:
    assert size(0).show(value) == shown


@given(st.sampled_from(KINDS), st.text(st.characters(exclude_categories=())))
def test_any_text_is_understood_or_refused(kind: Kind, text: str) -> None:
    try:
        value = parse(kind, text)
    except ValueError:
        return
    assert kind.accept(value) == value


@attrs.frozen(kw_only=True)
class Example:
    number: int = setting(whole(1), 7, "NUMBER", "A number.")
    password: str | None = setting(TEXT, None, "PASSWORD", "A secret.", secret=True)
    passwords: Any = setting(PAIRS, {}, "PASSWORDS", "Secrets.", secret=True)


class TestSetting:
    def test_knows_its_names(self) -> None:
        number, password, _ = (Setting.of(field) for field in attrs.fields(Example))
        assert (number.name, number.env, number.flag, number.default) == ("number", "NUMBER", "--number", 7)
        assert password.flag is None

    def test_says_what_is_wrong_where(self) -> None:
        with pytest.raises(ConfigError) as caught:
            Example(number=0)
        assert str(caught.value) == "number (NUMBER): expected a whole number from 1 upwards, not 0"

    def test_long_values_are_cut(self) -> None:
        with pytest.raises(ConfigError) as caught:
            Setting.of(attrs.fields(Example).number).parse("x" * 1000)
        assert len(str(caught.value)) < 200

    def test_none_only_where_it_is_the_default(self) -> None:
        assert Example(password=None).password is None
        with pytest.raises(ConfigError):
            Example(number=None)  # type: ignore[arg-type]

    def test_secrets_are_never_shown(self) -> None:
        example = Example(password="hunter2", passwords={"hunter2": "tenant"})
        assert repr(example) == "Example(number=7, password='***', passwords='***')"
        assert repr(Example()) == "Example(number=7, password=None, passwords=mappingproxy({}))"
        fields = attrs.fields(Example)
        for field, text in [
            (fields.password, "hunter2\udcff"),
            (fields.passwords, "hunter2,hunter2=x,hunter2=y"),
        ]:
            with pytest.raises(ConfigError) as caught:
                Setting.of(field).parse(text)
            assert "hunter2" not in str(caught.value)
        with pytest.raises(ConfigError) as caught:
            Example(passwords={"hunter2": 1})
        assert "hunter2" not in str(caught.value)
