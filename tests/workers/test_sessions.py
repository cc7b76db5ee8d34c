"""What is remembered, and what is forgotten."""

from __future__ import annotations

from workers._sessions import MOST_SESSIONS, Sessions


def test_key_has_a_value_of_its_own() -> None:
    sessions = Sessions(list[int])
    sessions.get("a").append(1)
    sessions.get("b").append(2)
    assert sessions.get("a") == [1]
    assert sessions.get("b") == [2]


def test_one_unused_longest_is_forgotten() -> None:
    sessions = Sessions(list[int], limit=3)
    for number, key in enumerate("abc"):
        sessions.get(key).append(number)
    sessions.get("a")
    sessions.get("d")
    assert len(sessions) == 3
    assert sessions.get("a") == [0]
    assert sessions.get("c") == [2]
    assert sessions.get("b") == []


def test_limit_is_a_hundred() -> None:
    sessions = Sessions(list[int])
    for number in range(1000):
        sessions.get(str(number))
    assert len(sessions) == MOST_SESSIONS == 100


def test_forgotten_key_begins_anew() -> None:
    sessions = Sessions(list[int])
    sessions.get("a").append(1)
    sessions.forget("a")
    sessions.forget("never seen")
    assert sessions.get("a") == []
