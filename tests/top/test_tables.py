from __future__ import annotations

import io
from typing import Any

import attrs
from rich.console import Console

from orbtrio.top.figures import Overview, WorkRow
from orbtrio.top.tables import as_rich, as_text

ROW = WorkRow(
    name="echo",
    workers=2,
    jobs=12_345,
    queued=17,
    in_hand=64,
    jobs_per_second=1234.5,
    batches_per_second=2.34,
    batch_size=31.5,
    latency=0.0042,
)
IDLE = attrs.evolve(
    ROW, queued=0, in_hand=0, jobs_per_second=0, batches_per_second=0, batch_size=None, latency=None
)
OVERVIEW = Overview(
    clients=3,
    open_jobs=81,
    files=12,
    file_bytes=3.5 * 1024 * 1024,
    accepted=1300,
    answered=1234.5,
    totals={"answered": 12_345, "refused: queue_full": 4},
    types=[ROW],
    workers=[attrs.evolve(IDLE, name="echo-1"), attrs.evolve(ROW, name="echo-2")],
)


def rich_text(overview: Overview, **options: Any) -> str:
    output = io.StringIO()
    Console(file=output, width=120).print(as_rich(overview, "host:5000", **options))
    return output.getvalue()


def test_text_shows_every_figure_in_its_column() -> None:
    assert as_text(OVERVIEW, "host:5000").splitlines() == [
        "host:5000  3 clients, 81 open jobs, accepted 1,300/s, answered 1,234/s, 12 files (4 MiB)",
        "since its start: answered 12,345, refused: queue_full 4",
        "",
        "type          workers  queued  in hand  jobs/s  batches/s  jobs/batch  ms/batch    jobs",
        "echo                2      17       64   1,234        2.3        31.5       4.2  12,345",
        "",
        "worker        queued  in hand  jobs/s  batches/s  jobs/batch  ms/batch    jobs",
        "echo-1             0        0       0          0           -         -  12,345",
        "echo-2            17       64   1,234        2.3        31.5       4.2  12,345",
    ]


def test_rich_shows_the_same_cells() -> None:
    words = rich_text(OVERVIEW).split()
    assert words == as_text(OVERVIEW, "host:5000").split()


def test_without_a_second_reading_there_are_no_speeds() -> None:
    overview = attrs.evolve(
        OVERVIEW,
        accepted=None,
        answered=None,
        file_bytes=5 * 1024**3,
        types=[attrs.evolve(ROW, jobs_per_second=None, batches_per_second=None, latency=0.5)],
    )
    lines = as_text(overview, "host:5000").splitlines()
    assert lines[0] == "host:5000  3 clients, 81 open jobs, 12 files (5.0 GiB)"
    assert lines[4].split() == ["echo", "2", "17", "64", "-", "-", "31.5", "500", "12,345"]


def test_a_small_screen_shows_the_busiest_workers() -> None:
    workers = [attrs.evolve(IDLE, name=f"echo-{number}") for number in range(100)]
    workers[40] = attrs.evolve(ROW, name="echo-40")
    overview = attrs.evolve(OVERVIEW, workers=workers)
    for text, lines in ((as_text(overview, "h", lines=14), 14), (rich_text(overview, lines=14), 14)):
        assert len(text.splitlines()) <= lines
        assert "echo-40" in text
        assert "more workers" in text


def test_no_worker_is_said() -> None:
    nobody = attrs.evolve(OVERVIEW, types=[], workers=[])
    assert as_text(nobody, "h").endswith("No worker is connected.")
    assert "No worker is connected." in rich_text(nobody)
