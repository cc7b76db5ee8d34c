from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orbtrio.client._program_inputs import (
    Asked,
    Entry,
    Problem,
    Refused,
    check_words,
    count,
    expand,
    from_arguments,
    from_line,
)
from orbtrio.inputs import Document, Image


def made(worker_type: str, *files: Path, **asked: Any) -> list[Entry]:
    entries = list(from_arguments(worker_type, Asked(**asked), files))
    assert all(isinstance(entry, Entry) for entry in entries)
    assert len(entries) == count(worker_type, Asked(**asked), files)
    return [entry for entry in entries if isinstance(entry, Entry)]


def inputs(worker_type: str, *files: Path, **asked: Any) -> list[dict[str, Any]]:
    return [entry.input for entry in made(worker_type, *files, **asked)]


CAT, DOG = Path("cat.jpg"), Path("dog.PNG")


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


# --- From arguments ----------------------------------------------------------------------------------------


def test_texts_and_pictures_are_embedded(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("kittens")
    assert inputs("embedding", DOG, words, texts=["a", "b"]) == [
        {"text": "a"},
        {"text": "b"},
        {"filepath": Image("dog.PNG")},
        {"text": "kittens"},
    ]
    assert inputs("fast_embedding", texts=["a"], fields={"prompt_name": "query"}) == [
        {"text": "a", "prompt_name": "query"}
    ]


def test_prompts_become_messages(tmp_path: Path) -> None:
    words = tmp_path / "letter.txt"
    words.write_text("Dear all")
    assert inputs("llm", prompts=["Hello?"], system="Be brief.") == [
        {"messages": [{"role": "system", "content": "Be brief."}, user("Hello?")]}
    ]
    assert inputs("llm_fast", words, prompts=["Summarise:", "Answer:"]) == [
        {"messages": [user("Summarise:\n\nDear all")]},
        {"messages": [user("Answer:\n\nDear all")]},
    ]
    assert inputs("llm", words) == [{"messages": [user("Dear all")]}]


def test_pictures_stand_among_the_words() -> None:
    text, image = {"type": "text", "text": "What?"}, {"type": "image", "image": Image("cat.jpg")}
    assert inputs("vlm", CAT, prompts=["What?"]) == [{"messages": [user([text, image])]}]
    assert inputs("vlm", prompts=["What?"], system="Be brief.") == [
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                user([text]),
            ]
        }
    ]
    [described] = inputs("vlm", CAT)
    assert described["messages"][0]["content"][0]["text"] == "Describe this picture."


def test_pictures_are_sent_in_the_shape_of_each_type() -> None:
    cat = Image("cat.jpg")
    assert inputs("object_detection", CAT, DOG) == [{"filepath": cat}, {"filepath": Image("dog.PNG")}]
    assert inputs("caption", CAT) == [{"images": [cat]}]
    assert inputs("caption", CAT, prompts=["Who?", "Where?"]) == [
        {"images": [cat], "query": "Who?"},
        {"images": [cat], "query": "Where?"},
    ]
    assert inputs("segmentation", CAT, prompts=["cat", "dog"]) == [
        {"filepath": cat, "prompts": ["cat", "dog"]}
    ]
    assert inputs("video_segmentation", CAT, session="one") == [{"cross_job_id": "one", "current_frame": cat}]
    assert inputs("motion_energy", CAT, session="cam") == [{"media_id": "cam", "current_frame": cat}]


def test_frames_without_a_session_share_a_new_one() -> None:
    first, second = inputs("motion_energy", CAT, DOG)
    assert first["media_id"] == second["media_id"]
    assert first["media_id"] != inputs("motion_energy", CAT)[0]["media_id"]


def test_types_of_somebody_s_own_get_what_is_common() -> None:
    assert inputs("shout", CAT, texts=["a"], prompts=["b"]) == [
        {"text": "a"},
        {"prompt": "b"},
        {"filepath": Image("cat.jpg")},
    ]
    assert inputs("shout", fields={"loud": True}) == [{"loud": True}]


def test_results_will_know_their_files_and_pictures() -> None:
    [entry] = made("object_detection", CAT)
    assert (entry.file, entry.pictures) == ("cat.jpg", (Image("cat.jpg"),))


@pytest.mark.parametrize(
    ("worker_type", "why"),
    [
        ("embedding", "--text"),
        ("llm", "--prompt"),
        ("vlm", "--prompt"),
        ("caption", "pictures"),
        ("object_detection", "pictures"),
        ("shout", "nothing to send"),
    ],
)
def test_a_type_says_what_it_needs(worker_type: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        list(from_arguments(worker_type, Asked(), ()))


def test_a_file_that_cannot_be_read_costs_its_own_job(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "good.txt").write_text("good")
    files = [tmp_path / "binary", tmp_path / "missing", tmp_path / "good.txt"]
    binary, missing, good = from_arguments("embedding", Asked(), files)
    assert isinstance(binary, Problem)
    assert "binary: neither a known kind of picture nor text in UTF-8" in binary.text
    assert isinstance(missing, Problem)
    assert missing.text.endswith("missing: No such file or directory")
    assert missing.file == str(files[1])
    assert isinstance(good, Entry)


def test_folders_stand_for_their_pictures(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    assert expand([tmp_path]) == [tmp_path / "a.png", tmp_path / "b.JPG"]
    assert expand([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    with pytest.raises(Refused, match="no pictures in there"):
        expand([tmp_path / "empty"])
    with pytest.raises(Refused, match="there is no such file"):
        expand([tmp_path / "missing"])


def test_what_is_no_file_is_never_read(tmp_path: Path) -> None:
    """A pipe that nobody writes to would be read for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "a.png").touch()
    assert expand([tmp_path]) == [tmp_path / "a.png"]
    with pytest.raises(Refused, match=r"pipe\.png: neither a file nor a folder"):
        expand([tmp_path / "pipe.png"])
    with pytest.raises(Refused, match="aaa: File name too long"):
        expand([tmp_path / ("a" * 300)])


@pytest.mark.parametrize(
    ("worker_type", "asked", "why"),
    [
        ("object_detection", {"texts": ["a"]}, "has no use for --text; it takes pictures only"),
        ("caption", {"texts": ["a"]}, "has no use for --text; it takes --prompt"),
        ("fast_embedding", {"texts": ["a"], "prompts": ["b"]}, "has no use for --prompt; it takes --text"),
        ("echo", {"system": "a"}, "has no use for --system; it takes --text, --prompt"),
    ],
)
def test_words_without_a_use_are_refused(worker_type: str, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=f"^{worker_type} {why}$"):
        check_words(worker_type, Asked(**asked))
    check_words("llm", Asked(**asked))


# --- From lines of JSON ------------------------------------------------------------------------------------


def test_a_line_is_a_job() -> None:
    line = {
        "worker_type": "vlm",
        "input": {"a": [{"$image": "cat.jpg"}, {"b": {"$document": "d.txt"}}], "n": 1},
        "id": [7],
        "timeout": 3,
        "extra": {"priority": 1},
    }
    entry = from_line(json.dumps(line).encode(), None, Asked(fields={"more": True}))
    image = Image("cat.jpg")
    assert entry == Entry(
        worker_type="vlm",
        input={"a": [image, {"b": Document(Path("d.txt"))}], "n": 1, "more": True},
        timeout=3.0,
        extra={"priority": 1},
        pictures=(image,),
        given_id=[7],
    )


def test_a_line_without_a_type_gets_that_of_the_command_line() -> None:
    assert from_line(b'{"input": {}}', "echo", Asked()).worker_type == "echo"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not a line of JSON"),
        (b"\xff", "not a line of JSON"),
        (100_000 * b"[", "not a line of JSON"),
        (b"[]", "expected an object, as in"),
        (b'{"input": {}, "type": "x"}', "'type' means nothing here; known are worker_type"),
        (b'{"input": {}}', "worker_type: expected text"),
        (b'{"worker_type": 3, "input": {}}', "worker_type"),
        (b'{"worker_type": "x", "input": 3}', "input: expected an object"),
        (b'{"worker_type": "x", "input": {}, "extra": 3}', "extra"),
        (b'{"worker_type": "x", "input": {}, "timeout": 0}', "timeout"),
        (b'{"worker_type": "x", "input": {}, "timeout": true}', "timeout"),
        (b'{"worker_type": "x", "input": {"a": {"$image": 3}}}', r"\$image: expected the path"),
        (b'{"worker_type": "x", "input": ' + 70 * b'{"a":' + b"1" + 70 * b"}" + b"}", "nested"),
    ],
)
def test_a_line_that_is_no_job_is_refused(line: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        from_line(line, None, Asked())
