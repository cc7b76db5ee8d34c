from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

from orbtrio.errors import ConfigError
from orbtrio.toolkit.directories import Directories
from orbtrio.toolkit.jobs import TaskInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orbtrio.toolkit.settings import ToolkitSettings

    Settings = Callable[..., ToolkitSettings]

DAY = 86_400.0
TASK = TaskInput(internal_job_id="job", internal_task_id="task")


def age(path: Path, days: float) -> None:
    """Make all of a directory look older."""
    then = time.time() - days * DAY
    for directory, _, files in os.walk(path):
        for name in files:
            os.utime(os.path.join(directory, name), (then, then), follow_symlinks=False)
        os.utime(directory, (then, then))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def directories(toolkit_settings: Settings, cache: Path) -> Directories:
    return Directories(toolkit_settings(cache_directory=cache))


def test_et_88_scratch_directory_of_a_task_exists(directories: Directories, cache: Path) -> None:
    path = directories.task(TASK)
    assert path == cache / "1" / "task" / "job" / "task" / "tmp"
    assert path.is_dir()
    assert directories.task(TASK) == path


def test_et_89_engines_directory_is_the_same_for_all_instances(
    toolkit_settings: Settings, directories: Directories, cache: Path
) -> None:
    assert directories.engine == cache / "1" / "engine" / "words"
    assert directories.engine.is_dir()
    assert Directories(toolkit_settings(cache_directory=cache)).engine == directories.engine


def test_et_90_131_133_134_librarys_directory_exists(directories: Directories, cache: Path) -> None:
    task = TaskInput(library_id="lib", library_engine_model_id="model")
    path = directories.library(task)
    assert path == cache / "1" / "libraries" / "lib" / "model"
    assert path.is_dir()
    (path / "weights").touch()
    assert directories.library(task) == path
    assert (path / "weights").exists()


@pytest.mark.parametrize("fields", [{}, {"library_id": "lib"}, {"library_engine_model_id": "model"}])
def test_a_task_without_a_librarys_model_has_no_such_directory(
    directories: Directories, fields: dict[str, Any]
) -> None:
    assert directories.library(TaskInput(**fields)) is None


BAD_NAMES = {
    "..": "begin with a dot",
    ".": "begin with a dot",
    ".hidden": "begin with a dot",
    "../../etc": "begin with a dot",
    "a/b": "a slash",
    "/etc": "a slash",
    "a\0b": "control characters",
    "a\nb": "control characters",
    "ä" * 128: "256 bytes",
    "\ud800": "half a character",
}


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_et_134_ids_that_are_no_plain_names_are_refused(
    directories: Directories, cache: Path, name: str
) -> None:
    for task, field in (
        (TaskInput(library_id=name, library_engine_model_id="model"), "libraryId"),
        (TaskInput(library_id="lib", library_engine_model_id=name), "libraryEngineModelId"),
    ):
        with pytest.raises(ValueError, match=BAD_NAMES[name]) as caught:
            directories.library(task)
        assert str(caught.value).startswith(f"{field} ")
    for task, field in (
        (TaskInput(internal_job_id=name), "internalJobId"),
        (TaskInput(internal_task_id=name), "internalTaskId"),
    ):
        with pytest.raises(ValueError, match=BAD_NAMES[name]) as caught:
            directories.task(task)
        assert str(caught.value).startswith(f"{field} ")
    assert list(cache.iterdir()) == []


def test_an_empty_id_is_refused(directories: Directories) -> None:
    with pytest.raises(ValueError, match="internalTaskId is empty"):
        directories.task(TaskInput(internal_task_id=""))


def test_ids_that_look_odd_and_are_plain_names_are_kept(directories: Directories) -> None:
    task = TaskInput(internal_job_id="a b:c\\d", internal_task_id="ü..x" + "x" * 249)
    assert directories.task(task).is_dir()


@pytest.mark.parametrize("changes", [{"shard": "../1"}, {"engine_id": "a/b"}])
def test_settings_that_are_no_names_are_refused_at_once(
    toolkit_settings: Settings, changes: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="a slash"):
        Directories(toolkit_settings(**changes))


def test_the_group_of_the_cache_directory_may_write_and_nobody_else_may_look(
    directories: Directories, cache: Path
) -> None:
    library = directories.library(TaskInput(library_id="lib", library_engine_model_id="model"))
    assert library is not None
    before = os.umask(0o777)
    try:
        made = [directories.task(TASK), directories.engine, library]
    finally:
        os.umask(before)
    for path in made:
        while path != cache:
            assert stat.S_IMODE(path.stat().st_mode) == 0o2770
            path = path.parent


def test_modes_of_what_was_there_are_left_alone(directories: Directories, cache: Path) -> None:
    cache.chmod(0o751)
    directories.engine.chmod(0o700)
    assert stat.S_IMODE(directories.engine.stat().st_mode) == 0o700
    assert stat.S_IMODE(cache.stat().st_mode) == 0o751


def test_a_cache_directory_of_our_making_is_ours_alone(toolkit_settings: Settings, tmp_path: Path) -> None:
    cache = tmp_path / "some" / "cache"
    assert Directories(toolkit_settings(cache_directory=cache)).task(TASK).is_dir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_a_directory_that_another_user_has_put_there_first_is_not_used(
    directories: Directories, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.chmod(0o1777)
    owner = cache.stat().st_uid
    if owner == 0:
        os.chown(cache, 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        directories.task(TASK)
    cache.parent.chmod(0o755)
    assert directories.task(TASK).is_dir()


@pytest.mark.parametrize("level", ["1", "1/task", "1/task/job", "1/task/job/task", "1/task/job/task/tmp"])
def test_no_directory_is_made_through_a_link(
    directories: Directories, cache: Path, tmp_path: Path, level: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (cache / level).parent.mkdir(parents=True, exist_ok=True)
    (cache / level).symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        directories.task(TASK)
    assert list(elsewhere.iterdir()) == []


def test_et_88_what_nobody_has_used_for_three_days_is_purged(directories: Directories, cache: Path) -> None:
    path = directories.task(TASK)
    (path / "deep").mkdir()
    (path / "deep" / "file").write_bytes(b"x")
    home = path.parent
    age(home, 2.9)
    assert directories.purge(()) == 0
    assert (path / "deep" / "file").exists()
    age(home, 3.1)
    assert directories.purge(()) == 1
    assert list((cache / "1" / "task").iterdir()) == []


def test_et_88_the_newest_file_counts(directories: Directories) -> None:
    path = directories.task(TASK)
    (path / "deep").mkdir()
    (path / "deep" / "file").touch()
    age(path.parent, 4)
    os.utime(path / "deep" / "file")
    assert directories.purge(()) == 0
    assert (path / "deep" / "file").exists()


def test_dates_in_the_future_keep_nothing(directories: Directories) -> None:
    path = directories.task(TASK)
    (path / "file").touch()
    age(path.parent, 4)
    os.utime(path / "file", (time.time() + 3650 * DAY,) * 2)
    assert directories.purge(()) == 1


def test_et_88_a_task_in_hand_is_not_purged_and_other_toolkits_see_that(
    toolkit_settings: Settings, directories: Directories, cache: Path
) -> None:
    path = directories.task(TASK)
    age(path.parent, 4)
    assert directories.purge({("job", "task"), ("job", "never made"), ("..", "no name")}) == 0
    assert path.is_dir()
    other = Directories(toolkit_settings(cache_directory=cache))
    assert other.purge(()) == 0
    assert path.is_dir()


def test_beginning_a_task_anew_keeps_its_directory(directories: Directories) -> None:
    path = directories.task(TASK)
    age(path.parent, 4)
    assert directories.task(TASK) == path
    assert directories.purge(()) == 0


def test_libraries_and_engines_are_not_purged(directories: Directories) -> None:
    task = TaskInput(library_id="lib", library_engine_model_id="model")
    library = directories.library(task)
    assert library is not None
    age(library, 1000)
    age(directories.engine, 1000)
    assert directories.purge(()) == 0
    assert library.is_dir()


def test_what_was_there_and_is_gone_is_made_again(directories: Directories, cache: Path) -> None:
    engine = directories.engine
    directories.task(TaskInput())
    shutil.rmtree(cache / "1")
    assert directories.engine == engine
    assert engine.is_dir()
    assert directories.task(TaskInput()).is_dir()


def test_what_cannot_be_listed_does_not_end_the_purge(
    directories: Directories, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cache / "1").mkdir(parents=True)
    (cache / "1" / "task").touch()
    assert directories.purge(frozenset()) == 0
    assert "cannot be purged" in caplog.text


def test_purging_without_any_task_is_nothing(directories: Directories) -> None:
    assert directories.purge(()) == 0


def test_purging_follows_no_links(directories: Directories, cache: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"x")
    age(precious, 10)
    path = directories.task(TASK)
    (path / "link").symlink_to(precious)
    (path / "file").symlink_to(precious / "file")
    other_job, other_task = cache / "1" / "task" / "linked", path.parent.parent / "linked"
    other_job.symlink_to(precious)
    other_task.symlink_to(precious)
    age(path.parent, 4)
    for link in (path / "link", path / "file"):
        os.utime(link, (0, 0), follow_symlinks=False)
    os.utime(path, (0, 0))
    assert directories.purge(()) == 1
    assert (precious / "file").read_bytes() == b"x"
    assert other_job.is_symlink()
    assert other_task.is_symlink()


def test_a_task_that_begins_while_its_directory_is_purged_keeps_it(
    directories: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directories.task(TASK)
    (path / "file").touch()
    age(path.parent, 4)
    rename = os.rename

    def begin_first(old: Path, new: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        assert directories.task(TASK) == path
        rename(old, new)

    monkeypatch.setattr(os, "rename", begin_first)
    assert directories.purge(()) == 0
    assert (path / "file").exists()


def test_a_task_that_begins_after_its_directory_was_renamed_gets_a_new_one(
    directories: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directories.task(TASK)
    (path / "file").touch()
    utime = os.utime

    def purge_first(target: Path) -> None:
        monkeypatch.setattr(os, "utime", utime)
        age(path.parent, 4)
        assert directories.purge(()) == 1
        utime(target)

    monkeypatch.setattr(os, "utime", purge_first)
    assert directories.task(TASK) == path
    assert list(path.iterdir()) == []


def test_a_directory_that_vanishes_again_and_again_is_an_error(
    directories: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(target: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "gone", str(target))

    monkeypatch.setattr(os, "utime", gone)
    with pytest.raises(FileNotFoundError):
        directories.task(TASK)


def test_what_cannot_be_deleted_is_logged_and_the_rest_is_purged(
    directories: Directories, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two", "three"):
        age(directories.task(TaskInput(internal_job_id="job", internal_task_id=name)).parent, 4)
    rmtree, failures = shutil.rmtree, [PermissionError("held"), RecursionError("deep")]

    def fail_first(path: Path) -> None:
        if failures:
            raise failures.pop()
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", fail_first)
    assert directories.purge(()) == 1
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == ["deep", "held"]
    # What is left of an interrupted purge goes with a later one.
    assert directories.purge(()) == 2


def test_a_file_that_vanishes_while_ages_are_looked_at_does_not_matter(
    directories: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directories.task(TASK)
    (path / "file").touch()
    age(path.parent, 4)
    looked = os.stat

    def vanish(name: Any, **options: Any) -> os.stat_result:
        if name == "file" and (path / "file").exists():
            (path / "file").unlink()
            age(path.parent, 4)
        return looked(name, **options)

    monkeypatch.setattr(os, "stat", vanish)
    assert directories.purge(()) == 1
