"""What the measured ends produce, and which answers they take for right. They run in `test_ends`."""

from __future__ import annotations

from array import array

import cbor2
import pytest

from benchmarks.ends_peers import Work

TEXT, LISTS = Work(), Work(20)
ARRAYS, MIXED = Work(20, worker_arrays=True, client_arrays=True), Work(20, worker_arrays=True)


def test_a_text_comes_back() -> None:
    assert TEXT.output(TEXT.input(7)) == TEXT.input(7)
    assert TEXT.check(7, TEXT.input(7))
    assert not TEXT.check(7, TEXT.input(8))
    assert not TEXT.check(7, {})
    assert TEXT.wire_output(7, typed=False) == TEXT.input(7)


@pytest.mark.parametrize("work", [LISTS, ARRAYS, MIXED])
def test_a_vector_is_the_one_of_its_job_in_the_form_that_was_asked_for(work: Work) -> None:
    output = work.output(work.input(7))
    vector = output["embedding"]
    assert type(vector) is (array if work.worker_arrays else list)
    received = array("f", vector) if work.client_arrays else list(vector)
    assert work.check(7, {"embedding": received})
    assert not work.check(8, {"embedding": received})
    assert not work.check(7, {"embedding": received[:-1]})
    other = list(vector) if work.client_arrays else array("f", vector)
    assert not work.check(7, {"embedding": other})


def test_the_floor_has_the_same_messages() -> None:
    vector = LISTS.output(LISTS.input(7))["embedding"]
    assert LISTS.wire_output(7, typed=False) == {"embedding": vector, "shape": [20]}
    tag = cbor2.CBORTag(85, array("f", vector).tobytes())
    assert ARRAYS.wire_output(7, typed=True) == {"embedding": tag, "shape": [20]}
