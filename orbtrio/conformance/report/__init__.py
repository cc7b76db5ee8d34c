"""What a run tells: to a terminal, to a build server, and to whoever must repair the target.

A report is read by a person who never saw this package. So it quotes the spec, shows the smallest
conversation that breaks the sentence, and says which command plays it again. Everything that came from the
target is hostile text until `words.visible` has seen it; nothing else in here may print it.

``console`` prints while the run goes on, ``files`` writes what stays, ``html`` draws the page; ``words`` are
the sentences that they share. They get results, and two functions for the spec's text, and know nothing else.
"""

from __future__ import annotations

from orbtrio.conformance.report.console import Console
from orbtrio.conformance.report.counterexamples import (
    CounterexampleError,
    StoredCounterexample,
    load_counterexample,
    store_counterexample,
)
from orbtrio.conformance.report.files import write_report
from orbtrio.conformance.report.html import render

__all__ = [
    "Console",
    "CounterexampleError",
    "StoredCounterexample",
    "load_counterexample",
    "render",
    "store_counterexample",
    "write_report",
]
