from __future__ import annotations

import io
from typing import Any

import httpx2
import pytest

from orbtrio.toolkit.engine import EngineFailure, Task
from orbtrio.toolkit.samples.words import words


def count(text: bytes, **fields: str) -> Any:
    with httpx2.Client() as client:
        return words(Task(fields, io.BytesIO(text), client))


def test_words_are_counted_whatever_their_case() -> None:
    found = count("Ähm ähm und".encode(), startOffsetMS="1000", endOffsetMS="2000")
    assert found["series"][0] == {
        "startTimeMs": 1000,
        "stopTimeMs": 2000,
        "object": {"type": "word", "label": "ähm", "count": 2},
    }
    assert [each["object"]["label"] for each in found["series"]] == ["ähm", "und"]


def test_ten_words_are_enough() -> None:
    assert len(count(" ".join(map(str, range(20))).encode())["series"]) == 10


def test_there_is_nothing_to_say_about_blanks() -> None:
    assert count(b" \n ") is None


def test_what_is_no_text_is_the_authors_mistake() -> None:
    with pytest.raises(EngineFailure, match="the chunk is no UTF-8") as raised:
        count(b"\xff")
    assert raised.value.reason == "invalid_data"
