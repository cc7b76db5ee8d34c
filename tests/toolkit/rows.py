"""Which requirements of the engine toolkit have a test, and which have none.

    python -m tests.toolkit.rows

Tests name the rows that they prove: ``test_et_104_…``, or ``test_et_71_72_…`` for two. Exit status 1 if a row
has none.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NOT_HERE", "ROWS", "rows_of", "rows_with_tests", "rows_without_tests"]

# The part of the requirements that orbtrio takes on; file system, DAGs and native engines come later.
ROWS: Final = frozenset({6, 7, 8, 12, *range(30, 52), *range(56, 150)})

# What no test of ours can show, and why.
NOT_HERE: Final = {
    36: "what an engine puts into a TDO passes us by",
    39: "there is nothing to do without Kafka",
    48: "how to build an image, which a Dockerfile shows",
    61: "which build an instance runs is decided by whoever starts it",
    66: "a remark on the Controller's API",
    117: "the push adapter comes with the pipeline; here metadata is a field of the input",
    119: "jobs are created by ORB clients here; the URIs are a field of the input",
    127: "what an engine does with its training is its own affair, with the platform's API",
}

_NAME: Final = re.compile(r"test_et((?:_\d+)+)(?:_|\Z)")
_HERE: Final = Path(__file__).resolve().parent


def rows_of(name: str) -> set[int]:
    """The rows that a test's name claims."""
    match = _NAME.match(name)
    return {int(number) for number in match[1].strip("_").split("_")} if match else set()


def rows_with_tests(directory: Path = _HERE.parent) -> set[int]:
    """All rows that tests in a directory claim."""
    return {row for name in _function_names(directory) for row in rows_of(name)}


def rows_without_tests() -> list[int]:
    """Rows that need a test and have none."""
    return sorted(ROWS - NOT_HERE.keys() - rows_with_tests())


def _function_names(directory: Path) -> Iterator[str]:
    for path in sorted(directory.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.name


def main() -> int:
    """Print the rows without a test."""
    missing = rows_without_tests()
    for row in missing:
        print(f"ET-{row:02} has no test")
    print(f"{len(ROWS - NOT_HERE.keys()) - len(missing)} of {len(ROWS - NOT_HERE.keys())} rows have one")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
