"""Files below the store's root: their names, and all that a disk or a stranger can do to them."""

from __future__ import annotations

import errno
import os
import resource
import stat
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbtrio.engine._disk import LockedDirectory, WriteFailed, extension, file_name, plain_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FRAMES = "tenant/files/frames"
NAME = "frame-0123456789abcdef.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "unblink-engine"


@pytest.fixture
def directory(root: Path) -> Iterator[LockedDirectory]:
    directory = LockedDirectory(str(root))
    yield directory
    directory.close()


@pytest.fixture(autouse=True)
def _no_descriptor_stays_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def files_below(root: Path) -> dict[str, bytes]:
    """Content of every file but the lock, by path."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def failing(error: int, function: Callable[..., Any], *, when: Callable[..., bool]) -> Callable[..., Any]:
    """A system call that fails for some arguments."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            raise OSError(error, os.strerror(error))
        return function(*args, **kwargs)

    return call


class TestNames:
    @pytest.mark.parametrize("name", ["img-001", "a", "_x", "frame.1", "UPPER", "a" * 64, "CON", "a..b"])
    def test_plain_names_are_kept(self, name: str) -> None:
        assert plain_name(name) == name

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "../../x",
                "/etc/x",
                "a/b",
                "..",
                ".",
                "",
                "x" * 65,
                "x" * 4096,
                "a\0b",
                "a\nb",
                "a\n",
                "-rf",
                "--help",
            ),
            *(
                "%2e",
                "%2e%2e%2f",
                ".lock",
                ".hidden",
                "a b",
                "a\\b",
                "C:x",
                "~",
                "~root",
                "$HOME",
                "*",
                "é",
                "\u202egnp.x",
            ),
            *("\ud800", "a\u0301", "\u00e1", "\uff0e\uff0e", "٣"),
        ],
    )
    def test_others_never_reach_the_disk(self, name: str) -> None:
        """B-61."""
        assert set(plain_name(name)) <= set("0123456789abcdef")
        assert len(plain_name(name)) == 32

    @given(st.text(st.characters(exclude_categories=())))
    def test_any_text_becomes_one_harmless_component(self, name: str) -> None:
        made = file_name(name, "png")
        assert len(made) <= 100
        assert made.isascii()
        assert made[0] not in ".-"
        assert "/" not in made
        assert plain_name(plain_name(name)) == plain_name(name)

    @pytest.mark.parametrize(
        ("one", "other"), [("img", "IMG"), ("é", "e\u0301"), ("K", "\u212a"), ("same", "same")]
    )
    def test_twins_get_different_files(self, one: str, other: str) -> None:
        """B-61: also where the file system takes no notice of case, or of how a character is composed."""
        assert file_name(one, "png").lower() != file_name(other, "png").lower()

    def test_digests_tell_names_apart(self) -> None:
        assert (
            len({plain_name(name) for name in ("a/b", "a/c", "../a", "é", "e\u0301", "\ud800", "\udfff")})
            == 7
        )


class TestExtension:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "png"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\x08acTL\0\0\0\1\0\0\0\0", "png"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "jpg"),
            (b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0", "webp"),
            (b"GIF89a\1\0\1\0", "gif"),
            (b"BM\x46\0\0\0\0\0\0\0", "bmp"),
            (b"II*\0\x08\0\0\0\0\0\0\0", "tiff"),
            (b"MM\0*\0\0\0\x08\0\0\0\0", "tiff"),
            (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "avif"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
            (b"%PDF-1.7\n", "pdf"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "mp4"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"PK\x03\x04evil.sh", "png"),
            (b"<html><script>alert(1)</script></html>", "bin"),
            (b"\x7fELF\x02\x01\x01", "bin"),
            (b"MZ\x90\0", "bin"),
            (b"#!/bin/sh\n", "bin"),
            (b"PK\x03\x04", "bin"),
            (b"\0" * 9000, "bin"),
            (b"\x89PN", "bin"),
            (b"", "bin"),
        ],
    )
    def test_comes_from_magic_bytes(self, data: bytes, expected: str) -> None:
        """B-63."""
        assert extension("image", data) == expected

    def test_document_is_text_whatever_it_holds(self) -> None:
        assert extension("document", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR") == "txt"

    @given(
        st.sampled_from(
            [b"", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x18ftyp", b"\0\0\xff\xffftypheic", b"RIFF", b"\x1aE\xdf\xa3"]
        ),
        st.binary(max_size=200),
    )
    def test_any_bytes_have_one(self, head: bytes, rest: bytes) -> None:
        assert extension("image", head + rest).isalnum()


class TestWriting:
    def test_file_is_whole_and_private(self, root: Path, directory: LockedDirectory) -> None:
        previous = os.umask(0)
        try:
            directory.write("tenant", {NAME: b"data" * 100_000, "b.txt": b""})
        finally:
            os.umask(previous)
        assert files_below(root) == {f"{FRAMES}/{NAME}": b"data" * 100_000, f"{FRAMES}/b.txt": b""}
        assert directory.file_path("tenant", NAME) == str(root / FRAMES / NAME)
        assert mode_of(root / FRAMES / NAME) == 0o600
        for path in (root, root / "tenant", root / "tenant/files", root / FRAMES):
            assert mode_of(path) == 0o700

    def test_short_writes_are_continued(
        self, root: Path, directory: LockedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
        directory.write("tenant", {NAME: b"0123456789"})
        monkeypatch.undo()
        assert files_below(root) == {f"{FRAMES}/{NAME}": b"0123456789"}

    def test_write_without_progress_ends(
        self, root: Path, directory: LockedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
        with pytest.raises(WriteFailed) as caught:
            directory.write("tenant", {NAME: b"x"})
        assert caught.value.cause.errno == errno.EIO
        assert files_below(root) == {}

    def test_full_disk_leaves_nothing_of_the_call(
        self, root: Path, directory: LockedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F-28: 245,760 of 400,000 bytes fit; the file before goes too, the files of other calls stay."""
        directory.write("tenant", {"other.bin": b"other"})
        write = os.write
        room = 245_760 + 5

        def write_while_there_is_room(descriptor: int, data: bytes) -> int:
            nonlocal room
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = write(descriptor, bytes(data)[:room])
            room -= written
            return written

        monkeypatch.setattr(os, "write", write_while_there_is_room)
        with pytest.raises(WriteFailed) as caught:
            directory.write("tenant", {"first.bin": b"first", NAME: b"x" * 400_000, "third.bin": b""})
        monkeypatch.undo()
        assert room == 0
        assert caught.value.cause.errno == errno.ENOSPC
        assert caught.value.left == {}
        assert files_below(root) == {f"{FRAMES}/other.bin": b"other"}

    def test_file_cut_by_the_kernel_is_removed(self, root: Path, directory: LockedDirectory) -> None:
        """The same with a limit that the kernel enforces: a short write, then an error."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (245_760, limits[1]))
        try:
            with pytest.raises(WriteFailed) as caught:
                directory.write("tenant", {NAME: b"x" * 400_000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.cause.errno == errno.EFBIG
        assert files_below(root) == {}

    def test_out_of_inodes(
        self, root: Path, directory: LockedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F-29."""
        creates = failing(errno.ENOSPC, os.open, when=lambda path, flags, *_, **__: flags & os.O_EXCL)
        monkeypatch.setattr(os, "open", creates)
        with pytest.raises(WriteFailed) as caught:
            directory.write("tenant", {NAME: b"x"})
        monkeypatch.undo()
        assert caught.value.cause.errno == errno.ENOSPC
        assert files_below(root) == {}

    def test_what_cannot_be_removed_again_is_named(
        self, root: Path, directory: LockedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F-30."""
        monkeypatch.setattr(os, "unlink", failing(errno.EIO, os.unlink, when=lambda *_, **__: True))
        second = failing(errno.EIO, os.write, when=lambda descriptor, data: data == b"second")
        monkeypatch.setattr(os, "write", second)
        with pytest.raises(WriteFailed) as caught:
            directory.write("tenant", {"a.bin": b"first", "b.bin": b"second", "c.bin": b"third"})
        monkeypatch.undo()
        assert caught.value.left == {"a.bin": "a.bin", "b.bin": "b.bin.tmp"}
        assert directory.delete({"tenant": caught.value.left.values()}) == frozenset()
        assert files_below(root) == {}

    def test_folder_removed_in_between_is_made_again(
        self, root: Path, directory: LockedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory.write("tenant", {"a.bin": b""})
        directory.delete({"tenant": ["a.bin"]})
        real_open = os.open
        races = 1

        def open_after_a_race(path: str, flags: int, *args: Any, **kwargs: Any) -> int:
            nonlocal races
            if flags & os.O_EXCL and races:
                races -= 1
                directory.remove_folders(["tenant"])
            return real_open(path, flags, *args, **kwargs)

        monkeypatch.setattr(os, "open", open_after_a_race)
        directory.write("tenant", {NAME: b"x"})
        assert races == 0
        assert files_below(root) == {f"{FRAMES}/{NAME}": b"x"}
        races = 3
        directory.delete({"tenant": [NAME]})
        with pytest.raises(WriteFailed) as caught:
            directory.write("tenant", {NAME: b"x"})
        assert isinstance(caught.value.cause, FileNotFoundError)


class TestPlanted:
    """B-65, F-31: whatever stands where ours should, it is not followed and not destroyed."""

    @pytest.mark.parametrize("place", ["tenant", "tenant/files", "tenant/files/frames"])
    @pytest.mark.parametrize("plant", ["link", "dangling link", "file"])
    def test_in_place_of_a_directory(
        self, root: Path, directory: LockedDirectory, place: str, plant: str
    ) -> None:
        elsewhere = root.parent / "elsewhere"
        (elsewhere / "files" / "frames").mkdir(parents=True)
        (elsewhere / "frames").mkdir()
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        if plant == "file":
            (root / place).write_bytes(b"precious")
        else:
            (root / place).symlink_to(elsewhere if plant == "link" else root.parent / "nowhere")
        with pytest.raises(WriteFailed) as caught:
            directory.write("tenant", {NAME: b"x"})
        assert caught.value.cause.errno in (errno.ENOTDIR, errno.ELOOP)
        assert files_below(elsewhere) == {}
        assert not (root.parent / "nowhere").exists()
        assert directory.delete({"tenant": [NAME]}) == {NAME}
        directory.remove_folders(["tenant"])
        assert os.path.lexists(root / place)
        (root / place).unlink()
        directory.write("tenant", {NAME: b"x"})
        assert files_below(root) == {f"{FRAMES}/{NAME}": b"x"}

    @pytest.mark.parametrize("plant", ["symlink", "hard link", "directory"])
    def test_under_the_temporary_name(self, root: Path, directory: LockedDirectory, plant: str) -> None:
        precious = root.parent / "precious"
        precious.write_bytes(b"precious")
        place = root / FRAMES / (NAME + ".tmp")
        place.parent.mkdir(parents=True)
        if plant == "symlink":
            place.symlink_to(precious)
        elif plant == "hard link":
            place.hardlink_to(precious)
        else:
            place.mkdir()
        with pytest.raises(WriteFailed) as caught:
            directory.write("tenant", {NAME: b"x"})
        assert isinstance(caught.value.cause, FileExistsError)
        assert precious.read_bytes() == b"precious"
        assert os.path.lexists(place)

    def test_under_the_final_name(self, root: Path, directory: LockedDirectory) -> None:
        precious = root.parent / "precious"
        precious.write_bytes(b"precious")
        (root / FRAMES / "directory.png").mkdir(parents=True)
        (root / FRAMES / NAME).symlink_to(precious)
        directory.write("tenant", {NAME: b"x"})
        assert precious.read_bytes() == b"precious"
        assert not (root / FRAMES / NAME).is_symlink()
        with pytest.raises(WriteFailed):
            directory.write("tenant", {"directory.png": b"x"})
        assert files_below(root) == {f"{FRAMES}/{NAME}": b"x"}

    def test_deleting_a_link_leaves_its_target(self, root: Path, directory: LockedDirectory) -> None:
        precious = root.parent / "precious"
        precious.write_bytes(b"precious")
        (root / FRAMES).mkdir(parents=True)
        (root / FRAMES / NAME).symlink_to(precious)
        assert directory.delete({"tenant": [NAME]}) == frozenset()
        assert precious.read_bytes() == b"precious"


class TestRoot:
    def test_is_made_private(self, root: Path) -> None:
        root.mkdir(parents=True)
        root.chmod(0o777)
        LockedDirectory(str(root)).close()
        assert mode_of(root) == 0o700

    @pytest.mark.parametrize("plant", ["link", "dangling link", "file"])
    def test_must_be_a_directory(self, root: Path, plant: str) -> None:
        elsewhere = root.parent / "elsewhere"
        elsewhere.mkdir(parents=True)
        if plant == "file":
            root.write_bytes(b"")
        else:
            root.symlink_to(elsewhere if plant == "link" else root.parent / "nowhere")
        with pytest.raises(OSError, match=r"File exists|Not a directory|symbolic links"):
            LockedDirectory(str(root))
        assert list(elsewhere.iterdir()) == []

    def test_links_above_it_are_resolved(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "disk")
        directory = LockedDirectory(str(tmp_path / "link" / "store"))
        directory.close()
        assert directory.path == str(tmp_path / "disk" / "store")

    def test_lock_that_is_a_link_is_refused(self, root: Path) -> None:
        root.mkdir(parents=True)
        (root / ".lock").symlink_to(root.parent / "made by us")
        with pytest.raises(OSError, match="symbolic links"):
            LockedDirectory(str(root))
        assert not (root.parent / "made by us").exists()

    def test_is_locked_until_closed(self, root: Path, directory: LockedDirectory) -> None:
        """F-41."""
        with pytest.raises(BlockingIOError):
            LockedDirectory(str(root))
        directory.close()
        LockedDirectory(str(root)).close()

    def test_deleted_while_running_is_made_again(self, root: Path, directory: LockedDirectory) -> None:
        """F-31."""
        root.rename(root.parent / "moved away")
        assert directory.delete({"tenant": [NAME]}) == frozenset()
        assert not root.exists()
        directory.write("tenant", {NAME: b"x"})
        assert files_below(root) == {f"{FRAMES}/{NAME}": b"x"}
        with pytest.raises(BlockingIOError):
            LockedDirectory(str(root))

    @pytest.mark.parametrize("plant", ["link", "file"])
    def test_replaced_while_running(self, root: Path, directory: LockedDirectory, plant: str) -> None:
        """F-31."""
        away = root.parent / "moved away"
        root.rename(away)
        if plant == "file":
            root.write_bytes(b"precious")
        else:
            root.symlink_to(away)
        with pytest.raises(WriteFailed):
            directory.write("tenant", {NAME: b"x"})
        assert files_below(away) == {}
        root.unlink()
        away.rename(root)
        directory.write("tenant", {NAME: b"x"})
        assert files_below(root) == {f"{FRAMES}/{NAME}": b"x"}

    def test_taken_by_another_engine_while_running(self, root: Path, directory: LockedDirectory) -> None:
        root.rename(root.parent / "moved away")
        other = LockedDirectory(str(root))
        with pytest.raises(WriteFailed) as caught:
            directory.write("tenant", {NAME: b"x"})
        assert isinstance(caught.value.cause, BlockingIOError)
        other.close()
        directory.write("tenant", {NAME: b"x"})


class TestDeleting:
    def test_what_is_gone_is_no_matter(self, root: Path, directory: LockedDirectory) -> None:
        directory.write("tenant", {NAME: b"x"})
        assert directory.delete({"tenant": [NAME, "gone.bin"], "nobody": ["gone.bin"]}) == frozenset()
        assert files_below(root) == {}

    def test_failures_are_named_and_the_others_deleted(
        self, root: Path, directory: LockedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F-30."""
        directory.write("tenant", {"a.bin": b"a", "b.bin": b"b"})
        monkeypatch.setattr(
            os, "unlink", failing(errno.EACCES, os.unlink, when=lambda name, **_: name == "a.bin")
        )
        assert directory.delete({"tenant": ["a.bin", "b.bin"]}) == {"a.bin"}
        assert files_below(root) == {f"{FRAMES}/a.bin": b"a"}

    def test_folders_go_when_empty(self, root: Path, directory: LockedDirectory) -> None:
        directory.write("tenant", {NAME: b"x"})
        directory.write("other", {NAME: b"x"})
        directory.delete({"tenant": [NAME]})
        directory.remove_folders(["tenant", "other", "nobody"])
        assert sorted(path.name for path in root.iterdir()) == [".lock", "other"]
        assert files_below(root) == {f"other/files/frames/{NAME}": b"x"}


class TestSweep:
    def test_deletes_ours_and_nothing_else(self, root: Path, directory: LockedDirectory) -> None:
        precious = root.parent / "precious"
        precious.write_bytes(b"precious")
        directory.write("tenant", {file_name("a", "png"): b"x", file_name("../b", "txt"): b"x"})
        directory.write("killed", {file_name("half", "png") + ".tmp": b"x"})
        directory.write(
            "mixed", {file_name("a", "png"): b"x", "holiday.png": b"mine", "img-001-abc123.png": b"theirs"}
        )
        (root / "mixed/files/frames" / file_name("c", "png")).symlink_to(precious)
        (root / "mixed/files/frames" / file_name("d", "png")).mkdir()
        (root / "mixed" / file_name("e", "png")).write_bytes(b"elsewhere")
        (root / "empty").mkdir()
        (root / "notes").mkdir()
        (root / "notes" / file_name("f", "png")).write_bytes(b"elsewhere")
        (root / file_name("g", "png")).write_bytes(b"elsewhere")
        (root / "link").symlink_to(root / "notes")
        (root / "deep").mkdir()
        (root / "deep/files").symlink_to(root / "mixed/files")
        before = len(files_below(root))

        assert directory.sweep() == (4, 0)

        assert len(files_below(root)) == before - 4
        assert precious.read_bytes() == b"precious"
        assert {path.name for path in root.iterdir() if path.is_dir()} == {
            "mixed",
            "empty",
            "notes",
            "link",
            "deep",
        }
        assert (root / "mixed/files/frames/holiday.png").read_bytes() == b"mine"

    def test_counts_what_it_could_not_delete(
        self, root: Path, directory: LockedDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory.write("tenant", {file_name("a", "png"): b"x", file_name("b", "png"): b"x"})
        monkeypatch.setattr(
            os, "unlink", failing(errno.EIO, os.unlink, when=lambda name, **_: name.startswith("a"))
        )
        assert directory.sweep() == (1, 1)
        assert len(files_below(root)) == 1

    def test_can_be_stopped(self, root: Path, directory: LockedDirectory) -> None:
        directory.write("tenant", {file_name("a", "png"): b"x"})

        def stop() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            directory.sweep(stop)
        assert len(files_below(root)) == 1
