"""The examples against the page that prints them, and against the shapes that it prints for worker types."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path
from typing import Any, Final

import cbor2
import pytest
from PIL import Image

from orbtrio.conformance.examples import (
    EXAMPLES,
    PICTURE,
    TYPE_EXAMPLES,
    check_output,
    check_path,
    message,
    sample_input,
)
from orbtrio.conformance.model import Role

ROOT: Final = Path(__file__).resolve().parents[2]
# It stands beside the repository, not in it; who has no copy cannot compare.
TEXT: Final = ROOT.parent / "shared" / "spec" / "ORB_WORKER_PROTOCOL.md"

needs_text = pytest.mark.skipif(not TEXT.exists(), reason="the spec does not lie beside this repository")

FILE: Final = "/srv/data/picture.png"
DOCUMENTED: Final = [
    "embedding",
    "llm",
    "vlm",
    "caption",
    "object_detection",
    "segmentation",
    "video_segmentation",
    "motion_energy",
]


def literals(source: str) -> list[dict[str, Any]]:
    """The outermost maps of a program that consist of constants only."""
    found: list[dict[str, Any]] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Dict):
            try:
                found.append(ast.literal_eval(node))
            except ValueError:
                pass
            else:
                return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found


def as_python(typescript: str) -> str:
    """A printed TypeScript value as a Python one: keys quoted, remarks and declarations gone."""
    text = re.sub(r"(^|\s)//.*", "", typescript).replace("<Uint8Array of PNG bytes>", "...")
    text = (
        re.sub(r"(?m)^(const|worker_ws)\b.*(?<!\{)$", "", text)
        .replace("const batch = ", "")
        .replace("};", "}")
    )
    return re.sub(r"(?m)(^\s*|\{ |, )(\w+): ", r'\1"\2": ', text)


def printed() -> list[dict[str, Any]]:
    """Every map of constants in the code blocks of the spec that is a message, or a job of one."""
    maps = []
    for language, block in re.findall(r"(?ms)^```(python|typescript)\n(.*?)^```", TEXT.read_text("utf-8")):
        source = block if language == "python" else as_python(block)
        try:
            maps += literals(source)
        except SyntaxError:
            continue  # a type, not a value
    return [found for found in maps if {"type", "inputs", "input"} & found.keys()]


def fits(example: Any, page: Any) -> bool:
    """Whether they are equal, but for what the page elides."""
    if page is ...:
        return True
    if isinstance(page, dict):
        return (
            isinstance(example, dict)
            and example.keys() == page.keys()
            and all(fits(example[k], page[k]) for k in page)
        )
    if isinstance(page, list):
        if page and page[-1] is ...:
            return bool(example[: len(page) - 1] == page[:-1])
        return len(example) == len(page) and all(map(fits, example, page))
    return type(example) is type(page) and bool(example == page)


@needs_text
def test_each_example_is_printed_and_each_printed_message_is_an_example() -> None:
    pages = printed()
    assert len(pages) >= len(EXAMPLES)
    unprinted = [name for name in EXAMPLES if not any(fits(message(name), page) for page in pages)]
    assert unprinted == []
    unknown = [page for page in pages if not any(fits(message(name), page) for name in EXAMPLES)]
    assert unknown == []


@needs_text
def test_sections_of_examples_are_titles_of_the_page() -> None:
    text = TEXT.read_text("utf-8")
    sections = {example.section for example in EXAMPLES.values()} | {
        e.section for e in TYPE_EXAMPLES.values()
    }
    assert [
        title for title in sections if not re.search(rf"(?m)^(#+ (\d+\. )?|\*\*){re.escape(title)}", text)
    ] == []


def test_an_example_tells_of_what_it_fills_in() -> None:
    filled = {name for name, example in EXAMPLES.items() if example.elided}
    assert filled == {"output of two successes", "output of a success and an error", "request"}


def test_shapes_tell_the_length_of_the_vectors_filled_in() -> None:
    for entry in message("output of two successes")["output"]:
        assert check_output("embedding", entry) == []
    assert message("output of two successes")["output"][1]["embedding"][:3] == [0.3, 0.4, 0.5]


def test_the_picture_filled_in_is_one() -> None:
    image = Image.open(io.BytesIO(PICTURE))
    image.load()
    assert (image.format, image.size) == ("PNG", (16, 16))


def test_messages_may_be_changed() -> None:
    message("batch")["inputs"][0]["input"]["text"] = "changed"
    assert message("batch")["inputs"][0]["input"]["text"] == "hello world"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_travels(name: str) -> None:
    assert cbor2.loads(cbor2.dumps(message(name))) == message(name)


def test_senders_are_those_of_the_types() -> None:
    senders = {"i_am_worker": Role.WORKER, "worker_output": Role.WORKER, "worker_request": Role.CLIENT}
    for example in EXAMPLES.values():
        if not example.part:
            assert example.sender is senders.get(example.printed.get("type", ""), Role.ENGINE), example.name


def test_the_printed_path_fits_the_printed_template() -> None:
    assert check_path(message("job with the path")["input"]["filepath"], "img-001") == []


def test_each_documented_type_has_an_example_that_fits() -> None:
    assert list(TYPE_EXAMPLES) == DOCUMENTED
    for worker_type, example in TYPE_EXAMPLES.items():
        assert example.worker_type == worker_type
        assert check_output(worker_type, dict(example.output)) == []
        assert example.job["id"] == example.output["id"]


def test_the_session_is_echoed_in_the_example() -> None:
    example = TYPE_EXAMPLES["video_segmentation"]
    assert example.output["cross_job_id"] == example.job["input"]["cross_job_id"]


@needs_text
@pytest.mark.parametrize("worker_type", DOCUMENTED)
def test_inputs_have_the_printed_fields_and_no_others(worker_type: str) -> None:
    page = TEXT.read_text("utf-8").split(f"### {TYPE_EXAMPLES[worker_type].section}", 1)[1]
    block = page.split("**Input:**")[1].split("```")[1]
    inside = block.split("input: {\n", 1)[1]
    fields = dict(re.findall(r"(?m)^ {8}(\w+)(\??):", inside))
    drawn = [sample_input(worker_type, FILE, number) for number in range(10)]
    assert set().union(*drawn) == set(fields)
    required = {name for name, mark in fields.items() if not mark}
    assert all(required <= entry.keys() for entry in drawn)


@pytest.mark.parametrize("worker_type", DOCUMENTED)
def test_inputs_differ_and_come_round_again(worker_type: str) -> None:
    drawn = [sample_input(worker_type, FILE, number) for number in range(13)]
    ways = len({repr(entry) for entry in drawn})
    assert drawn[ways] == drawn[0]
    assert ways > 1 or worker_type == "object_detection"
    assert any(FILE in repr(entry) for entry in drawn) or worker_type == "llm"


def test_other_types_get_a_text() -> None:
    assert [sample_input("test", FILE, number)["text"] for number in range(3)] == ["hello", "world", "hello"]


def test_inputs_may_be_changed() -> None:
    sample_input("caption", FILE)["images"].append("other")
    assert sample_input("caption", FILE) == {"images": [FILE]}
