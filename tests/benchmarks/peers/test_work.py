"""The work: distinct texts, an echo that counts, and a check that finds what is wrong."""

from __future__ import annotations

import pytest

from benchmarks.peers.work import QUESTION, Counts, Echo, WrongAnswer, texts, verify


@pytest.mark.parametrize("size", [9, 100, 10_000])
def test_texts_have_their_size_and_differ(size: int) -> None:
    made = texts(7, 50, size)
    assert {len(text.encode()) for text in made} == {size}
    assert len(set(made)) == 50
    assert made[0].startswith("00000007")


def test_echo_gives_back_what_it_got_and_counts() -> None:
    echo = Echo()
    assert echo(["a", "b"]) == ["a", "b"]
    echo(["c"])
    (answer,) = echo([QUESTION])
    assert Counts.parse(answer) == Counts(jobs=3, batches=2)
    assert Counts.parse(answer).jobs_per_batch == 1.5
    assert Counts(5, 3) - Counts(3, 2) == Counts(2, 1)
    assert Counts(0, 0).jobs_per_batch == 0


def test_no_counts_are_a_wrong_answer() -> None:
    with pytest.raises(WrongAnswer, match="answered 'how many"):
        Counts.parse(QUESTION)


@pytest.mark.parametrize("answers", [["1", "3"], ["2", "1"], ["1"], ["1", "2", "2"]])
def test_what_is_wrong_missing_or_one_too_many_is_found(answers: list[str]) -> None:
    verify(["1", "2"], ["1", "2"])
    with pytest.raises(WrongAnswer):
        verify(["1", "2"], answers)
