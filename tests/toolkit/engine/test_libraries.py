from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from orbtrio.toolkit.engine import keep_library, libraries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A process that gets a model of two files, slowly enough for others to begin; says how it went.
INSTANCE: Final = """
import runpy, sys
from pathlib import Path

keep_library = runpy.run_path(sys.argv[2])["keep_library"]

def download(attempt):
    (attempt / "weights").write_bytes(b"w" * 100_000)
    print("half", flush=True)
    sys.stdin.readline()
    (attempt / "labels").write_text("cat")

kept = keep_library(Path(sys.argv[1]), download)
print(sorted(path.name for path in kept.iterdir()), flush=True)
"""


def write(text: str) -> Callable[[Path], None]:
    def download(attempt: Path) -> None:
        assert list(attempt.iterdir()) == []
        (attempt / "part").mkdir()
        (attempt / "part" / "weights").write_text(text)

    return download


def refuse(attempt: Path) -> None:
    raise AssertionError("downloaded though it is there")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_et_135_a_model_is_downloaded_once_and_used_again(tmp_path: Path) -> None:
    library = tmp_path / "libraries" / "lib1" / "lem1"
    kept = keep_library(library, write("one"))
    assert kept == library / "model"
    assert keep_library(library, refuse) == kept
    assert (kept / "part" / "weights").read_text() == "one"
    assert keep_library(library, write("other"), name="other") == library / "other"
    assert names(library) == ["model", "other"]


def test_et_136_of_instances_that_start_together_one_wins_and_all_see_the_whole(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    seen: list[Path] = []

    def instance(number: int) -> None:
        def download(attempt: Path) -> None:
            together.wait(60)
            write(str(number))(attempt)

        seen.append(keep_library(tmp_path, download))

    threads = [threading.Thread(target=instance, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [tmp_path / "model"] * 4
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "part" / "weights").read_text() in "0123"


def test_et_136_a_killed_instance_leaves_no_half_model(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", INSTANCE, str(tmp_path), libraries.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    killed, living = start(), start()
    assert killed.stdout is not None
    assert living.stdout is not None
    assert killed.stdout.readline() == living.stdout.readline() == "half\n"
    assert not (tmp_path / "model").exists()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    output, _ = living.communicate("go on\n", timeout=60)
    assert output == "['labels', 'weights']\n"
    assert names(tmp_path / "model") == ["labels", "weights"]


def test_nothing_is_left_of_a_download_that_fails(tmp_path: Path) -> None:
    def fail(attempt: Path) -> None:
        (attempt / "weights").write_text("half")
        raise ConnectionError("the other side hung up")

    with pytest.raises(ConnectionError, match="hung up"):
        keep_library(tmp_path, fail)
    assert names(tmp_path) == []
    keep_library(tmp_path, write("whole"))


def test_a_model_that_cannot_be_put_in_its_place_says_why(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("somebody's file")
    with pytest.raises(NotADirectoryError) as raised:
        keep_library(tmp_path, write("one"))
    assert raised.value.errno == errno.ENOTDIR
    assert names(tmp_path) == ["model"]


def test_what_killed_instances_left_is_deleted_when_it_is_old(tmp_path: Path) -> None:
    yesterday = time.time() - 90_000
    for name in ("old", "alive"):
        (tmp_path / f".tmp-{name}").mkdir()
        (tmp_path / f".tmp-{name}" / "weights").write_text("half")
        if name == "old":
            os.utime(tmp_path / f".tmp-{name}" / "weights", (yesterday, yesterday))
        os.utime(tmp_path / f".tmp-{name}", (yesterday, yesterday))
    keep_library(tmp_path, write("one"))
    assert names(tmp_path) == [".tmp-alive", "model"]
