from __future__ import annotations

from typing import TYPE_CHECKING

import cbor2
import pytest

from benchmarks.work import Detections, Echo, Image, TokenUsage, Vector

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.work import Work


@pytest.mark.parametrize("work", [Echo(100), Echo(10_000), Vector(), Detections(), TokenUsage()], ids=str)
def test_what_workers_answer_is_what_is_expected(work: Work) -> None:
    for number in (0, 61, 12_345_678):
        output = cbor2.loads(work.entry("id-1", work.delivered(number)))
        assert output == {"id": "id-1", **work.expected(number)}
        assert work.expected(number) != work.expected(number + 1)
        assert work.answer("id-1", number) == work.entry("id-1", work.delivered(number))


def test_the_worker_of_an_image_looks_into_the_file(tmp_path: Path) -> None:
    work = Image(1000)
    file = tmp_path / "frame"
    file.write_bytes(work.resources(7)[0]["data"])
    right = work.answer("id-1", 7)
    assert work.entry("id-1", {"filepath": str(file)}) == right
    file.write_bytes(work.resources(8)[0]["data"])
    assert work.entry("id-1", {"filepath": str(file)}) != right
    file.write_bytes(work.resources(7)[0]["data"][:-1])
    assert work.entry("id-1", {"filepath": str(file)}) != right
