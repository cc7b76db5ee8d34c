"""The words that worlds have in common."""

from __future__ import annotations

from orbtrio.conformance.world import PipeEnded, PipeStuck, never


def test_never_never_holds() -> None:
    assert not never()


def test_whoever_handles_one_ending_does_not_handle_the_other() -> None:
    assert not issubclass(PipeEnded, PipeStuck)
    assert not issubclass(PipeStuck, PipeEnded)
