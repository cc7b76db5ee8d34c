"""The CBOR items are as wrong as they say, by the judgement of a decoder."""

from __future__ import annotations

import random

import cbor2
import pytest

from orbtrio.conformance.cases.items import HUGE, ILL_FORMED, STRANGE, UNUSUAL, random_item
from orbtrio.conformance.notation import decode

# Well-formed, but more or other than the protocol has a use for: a lenient decoder lets them pass.
REFUSED_FOR_ANOTHER_REASON = ("B-25", "B-27", "B-28", "B-33", "B-34", "B-37", "B-38", "B-24")


@pytest.mark.parametrize(
    "name", [name for name in ILL_FORMED if not name.startswith(REFUSED_FOR_ANOTHER_REASON)]
)
def test_ill_formed_items_are_refused_by_a_decoder(name: str) -> None:
    with pytest.raises(ValueError, match="CBOR"):
        decode(ILL_FORMED[name]())


def test_what_stands_behind_an_item_is_refused_by_a_strict_decoder_only() -> None:
    item = ILL_FORMED["B-24 a message and a byte"]()
    assert cbor2.loads(item) == {"type": "i_am_server", "version": "1.0.1"}
    with pytest.raises(ValueError, match="behind"):
        decode(item)


@pytest.mark.parametrize("name", STRANGE)
def test_strange_items_are_well_formed_and_no_messages(name: str) -> None:
    assert not isinstance(decode(STRANGE[name]()), dict)


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_items_are_well_formed(name: str) -> None:
    decode(UNUSUAL[name]())


def test_huge_items_are_huge_and_the_others_fit_a_strangers_message() -> None:
    assert ILL_FORMED.keys() >= HUGE
    assert all(len(ILL_FORMED[name]()) >= 1_000_000 for name in HUGE)
    assert all(len(make()) < 2**17 for name, make in ILL_FORMED.items() if name not in HUGE)


def test_random_items_are_well_formed_often_and_ill_formed_often() -> None:
    generator, good = random.Random(5), 0
    for _ in range(300):
        try:
            decode(random_item(generator, 4))
        except ValueError:
            continue
        good += 1
    assert 30 < good < 290
