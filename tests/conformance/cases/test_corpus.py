"""The corpus covers its rows, and its vectors are what they say."""

from __future__ import annotations

import pytest

from orbtrio.conformance.cases import corpus
from orbtrio.conformance.cases.corpus import CLIENT, CORPUS, STRANGER, WORKER
from orbtrio.conformance.notation import decode

ROWS = [*range(14, 19), 20, 21, *range(23, 41), 42, 43, *range(51, 56), *range(58, 62), 66, 67, 70, 71]


def payload(data: bytes) -> bytes:
    """Of the first frame."""
    start = {126: 4, 127: 10}.get(data[1] & 127, 2) + 4
    return data[start:]


def test_every_row_is_covered() -> None:
    assert {vector.row for vector in CORPUS.values()} == {f"B-{row}" for row in ROWS}


@pytest.mark.parametrize("row", range(23, 40))
def test_rows_of_cbor_are_sent_by_all_roles(row: int) -> None:
    roles = {role for name, role in corpus.attacks() if CORPUS[name].row == f"B-{row}"}
    assert roles == {STRANGER, CLIENT, WORKER}


def test_every_vector_can_be_made_and_says_what_is_required() -> None:
    for vector in CORPUS.values():
        assert vector.make("embedding")[0] & 15 < 16
        assert vector.what
        assert set(vector.required) & {"open", "gone", "1002", "1003", "1008", "1009"}


def test_jobs_of_vectors_are_for_the_given_worker_type() -> None:
    request = decode(payload(CORPUS["B-39 NaN, in an input"].make("caption")))
    assert request["jobs"][0]["worker_type"] == "caption"


def test_items_stand_inside_outputs_too() -> None:
    output = decode(payload(CORPUS["B-39 undefined, in an output"].make("caption")))
    assert output["type"] == "worker_output"
    assert set(output["output"][0]) == {"id", "x"}


def test_noise_follows_its_seed_and_comes_in_three_kinds() -> None:
    assert corpus.noise(11, "llm") == corpus.noise(11, "llm")
    texts = [corpus.noise(seed, "llm") for seed in range(60)]
    assert len(set(texts)) > 50
    assert any(b"worker_" in text for text in texts)
