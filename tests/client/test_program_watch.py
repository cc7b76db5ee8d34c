from __future__ import annotations

import io
import os
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio
from PIL import Image

from orbtrio.client._program_watch import Watcher, ends_rightly

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

FORMATS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp"}


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 48), 80).convert("RGB").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_end_of_a_file_is_known(kind: str, tmp_path: Path) -> None:
    path, data = tmp_path / "x", encoded(kind)
    path.write_bytes(data)
    assert ends_rightly(path)
    path.write_bytes(data[:-20])
    assert not ends_rightly(path)


def test_formats_without_an_end_and_missing_files_have_none(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert not ends_rightly(path)
    path.write_bytes(b"II*\0something")
    assert not ends_rightly(path)


class Watch:
    """A watcher at work, and what it has found."""

    def __init__(self, folder: Path, nursery: trio.Nursery, *, existing: bool = False) -> None:
        self.watcher = Watcher(folder, interval=0.5, existing=existing)
        self.found: list[str] = []
        self.said: list[str] = []
        nursery.start_soon(self.run)

    async def run(self) -> None:
        async with aclosing(self.watcher.pictures(self.said.append)) as pictures:
            async for path in pictures:
                self.found.append(path.name)


async def test_a_picture_is_handed_on_once_when_it_is_whole(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    data = encoded("JPEG")
    (tmp_path / "old.jpg").write_bytes(data)
    async with trio.open_nursery() as nursery:
        watch = Watch(tmp_path, nursery)
        await trio.sleep(1)
        with (tmp_path / "new.jpg").open("wb") as file:
            file.write(data[:100])
            file.flush()
            await trio.sleep(3)  # less than it takes to count as whole by its age
            assert watch.found == []
            file.write(data[100:])
        (tmp_path / "notes.txt").write_text("no picture")
        (tmp_path / ".hidden.jpg").write_bytes(data)
        (tmp_path / "folder.jpg").mkdir()
        (tmp_path / "empty.jpg").touch()
        await trio.sleep(60)
        assert watch.found == ["new.jpg"]
        nursery.cancel_scope.cancel()


async def test_a_picture_with_something_behind_it_is_whole_when_it_has_settled(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        watch = Watch(tmp_path, nursery)
        await trio.sleep(1)
        (tmp_path / "phone.jpg").write_bytes(encoded("JPEG") + b"a film of two seconds")
        await trio.sleep(4)
        assert watch.found == []
        await trio.sleep(4)
        assert watch.found == ["phone.jpg"]
        nursery.cancel_scope.cancel()


async def test_what_is_written_anew_is_new(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "latest.png"
    path.write_bytes(encoded("PNG"))
    async with trio.open_nursery() as nursery:
        watch = Watch(tmp_path, nursery)
        await trio.sleep(2)
        path.write_bytes(encoded("PNG"))
        os.utime(path, ns=(1, 1))
        await trio.sleep(2)
        assert watch.found == ["latest.png"]
        path.unlink()
        await trio.sleep(2)
        path.write_bytes(encoded("PNG"))
        os.utime(path, ns=(1, 1))
        await trio.sleep(2)
        assert watch.found == ["latest.png", "latest.png"]
        nursery.cancel_scope.cancel()


async def test_existing_pictures_count_if_asked_for_oldest_first(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    for place, name in enumerate(("b.png", "a.png")):
        (tmp_path / name).write_bytes(encoded("PNG"))
        os.utime(tmp_path / name, ns=(place, place))
    async with trio.open_nursery() as nursery:
        watch = Watch(tmp_path, nursery, existing=True)
        await trio.sleep(2)
        assert watch.found == ["b.png", "a.png"]
        nursery.cancel_scope.cancel()


async def test_a_folder_that_is_gone_is_looked_for_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    folder = tmp_path / "in"
    async with trio.open_nursery() as nursery:
        watch = Watch(folder, nursery)
        await trio.sleep(2)
        assert watch.watcher.problem == f"{folder}: No such file or directory"
        folder.mkdir()
        (folder / "a.png").write_bytes(encoded("PNG"))
        await trio.sleep(2)
        assert (watch.watcher.problem, watch.found) == ("", ["a.png"])
        # A network disk that is away for a while: what it brings back is not new, and somebody is told.
        folder.rename(tmp_path / "away")
        await trio.sleep(2)
        (tmp_path / "away").rename(folder)
        await trio.sleep(10)
        assert watch.found == ["a.png"]
        gone, back = f"{folder}: No such file or directory; looking again", f"{folder}: there again"
        assert watch.said == [gone, back, gone, back]
        nursery.cancel_scope.cancel()


async def test_a_link_in_a_circle_hides_no_picture(tmp_path: Path, autojump_clock: MockClock) -> None:
    (tmp_path / "circle.png").symlink_to("circle.png")
    async with trio.open_nursery() as nursery:
        watch = Watch(tmp_path, nursery)
        await trio.sleep(2)
        (tmp_path / "a.png").write_bytes(encoded("PNG"))
        await trio.sleep(2)
        assert (watch.watcher.problem, watch.found) == ("", ["a.png"])
        nursery.cancel_scope.cancel()


async def test_a_file_that_vanishes_under_our_eyes_is_none(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        name = "gone.png"

        def is_file(self) -> bool:
            raise FileNotFoundError

    class Entries(list[Gone]):
        def __enter__(self) -> Entries:
            return self

        def __exit__(self, *args: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", lambda folder: Entries([Gone()]))
    async with trio.open_nursery() as nursery:
        watch = Watch(tmp_path, nursery)
        await trio.sleep(2)
        assert watch.found == []
        nursery.cancel_scope.cancel()
