from __future__ import annotations

import pytest

from tests.toolkit import rows


def test_every_row_has_a_test() -> None:
    assert rows.rows_without_tests() == []


def test_rows_that_need_none_are_rows() -> None:
    assert rows.NOT_HERE.keys() <= rows.ROWS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_et_104_reason_is_kept", {104}),
        ("test_et_71_72_offsets", {71, 72}),
        ("test_et_07", {7}),
        ("test_etc_5_things", set()),
        ("test_50_things", set()),
    ],
)
def test_names_tell_rows(name: str, expected: set[int]) -> None:
    assert rows.rows_of(name) == expected


def test_rows_that_are_missing_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS", frozenset({38, 9999}))
    monkeypatch.setattr(rows, "rows_with_tests", lambda: {38})
    assert rows.main() == 1
    assert capsys.readouterr().out == "ET-9999 has no test\n1 of 2 rows have one\n"
    monkeypatch.setattr(rows, "ROWS", frozenset({38}))
    assert rows.main() == 0
