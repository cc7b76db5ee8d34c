"""What the client's program was told to ask, as jobs: from arguments, and from lines of JSON.

Who types ``object_detection photo.jpg`` does not want to know how a job of that type is written. So there is
a function per type of the spec that makes inputs of what may stand on a command line. Whoever wants more
writes the inputs themselves, as lines of JSON, where ``{"$image": "photo.jpg"}`` stands for a file.

Spec: "Message Shapes by Worker Type".
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from orbtrio.inputs import Document, Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "PICTURE_SUFFIXES",
    "Asked",
    "Entry",
    "Problem",
    "Refused",
    "check_words",
    "expand",
    "from_arguments",
    "from_line",
]

PICTURE_SUFFIXES: Final = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

_MOST_DEPTH: Final = 64
_FIELDS: Final = ("worker_type", "input", "id", "timeout", "extra")
_DESCRIBE: Final = "Describe this picture."
# Whose prompts say what to do with each file, rather than being jobs of their own.
_PROMPTED: Final = ("llm", "vlm", "caption", "segmentation", "video_segmentation")
_ONE_PER_FILE: Final = ("segmentation", "video_segmentation")
# Which words a type of the spec has a use for; others would be left out without a word.
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "embedding": ("--text",),
    "llm": ("--text", "--prompt", "--system"),
    "vlm": ("--text", "--prompt", "--system"),
    "caption": ("--prompt",),
    "object_detection": (),
    "segmentation": ("--prompt",),
    "video_segmentation": ("--prompt",),
    "motion_energy": (),
}
# Types that take what another one takes.
_LIKE: Final = {"fast_embedding": "embedding", "llm_fast": "llm"}


class Refused(Exception):
    """This cannot become a job; the text says what to change."""


@attrs.frozen(kw_only=True)
class Asked:
    """What the command line says about every job.

    Attributes:
        texts, prompts: As given, in order.
        system: A first message for language models.
        session: What joins the frames of a video; None for a new one.
        fields: More fields of each input.
        image: Makes of a file what is sent.
    """

    texts: Sequence[str] = ()
    prompts: Sequence[str] = ()
    system: str | None = None
    session: str | None = None
    fields: Mapping[str, Any] = attrs.field(factory=dict)
    image: Callable[[Path], Image] = Image


@attrs.frozen(kw_only=True)
class Entry:
    """A job to come.

    Attributes:
        worker_type, input, timeout, extra: As `Client.submit` takes them.
        file: The file that it is about.
        pictures: Those in the input, in order.
        given_id: What its line had as ``id``, to be repeated in the result.
    """

    worker_type: str
    input: dict[str, Any]
    timeout: float | None = None
    extra: dict[str, Any] | None = None
    file: str | None = None
    pictures: tuple[Image, ...] = ()
    given_id: Any = None


@attrs.frozen(kw_only=True)
class Problem:
    """In the place of an `Entry`: what it was to be cannot become a job."""

    text: str
    worker_type: str | None = None
    file: str | None = None


# --- From arguments ----------------------------------------------------------------------------------------


def from_arguments(worker_type: str, asked: Asked, files: Sequence[Path]) -> Iterator[Entry | Problem]:
    """A job for each file, or for each text or prompt.

    Raises:
        Refused: this type needs something else; from the first step of the iterator.
    """
    kind = _LIKE.get(worker_type, worker_type)
    if asked.session is None:
        asked = attrs.evolve(asked, session=secrets.token_hex(6))
    if kind not in _PROMPTED and (asked.texts or asked.prompts):
        yield from _made(worker_type, kind, asked, ())
        asked = attrs.evolve(asked, texts=(), prompts=())
    elif not files:
        yield from _made(worker_type, kind, asked, ())
    # One by one, so that a file that cannot be read costs its own job only.
    for file in files:
        try:
            yield from _made(worker_type, kind, asked, (file,))
        except Refused as refusal:
            yield Problem(text=str(refusal), worker_type=worker_type, file=str(file))


def check_words(worker_type: str, asked: Asked) -> None:
    """Raise `Refused` if there are words that jobs of this type have no place for."""
    taken = _WORDS.get(_LIKE.get(worker_type, worker_type), ("--text", "--prompt"))
    given = {"--text": asked.texts, "--prompt": asked.prompts, "--system": asked.system}
    for option, words in given.items():
        if words and option not in taken:
            known = ", ".join(taken) or "pictures only"
            raise Refused(f"{worker_type} has no use for {option}; it takes {known}")


def count(worker_type: str, asked: Asked, files: Sequence[Path]) -> int:
    """How many jobs `from_arguments` will make, if all files can be read."""
    kind, words = _LIKE.get(worker_type, worker_type), len(asked.texts) + len(asked.prompts)
    if kind not in _PROMPTED:
        return max(1, words + len(files))
    return max(1, len(files)) * (max(1, words) if kind not in _ONE_PER_FILE else 1)


def _made(worker_type: str, kind: str, asked: Asked, files: Sequence[Path]) -> Iterator[Entry]:
    for file, job_input, pictures in _MAKERS.get(kind, _of_another_type)(asked, files):
        yield Entry(
            worker_type=worker_type,
            input={**job_input, **asked.fields},
            file=None if file is None else str(file),
            pictures=pictures,
        )


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the pictures in them, sorted by name.

    What bears a picture's name in a folder and is no file, such as another folder, is left out; a pipe would
    be read for ever.

    Raises:
        Refused: there is no such file, or no picture in a folder.
    """
    files: list[Path] = []
    for path in paths:
        try:
            files += _expanded(path)
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}") from None
    return files


def _expanded(path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted(
            one for one in path.iterdir() if one.suffix.lower() in PICTURE_SUFFIXES and one.is_file()
        )
        if not inside:
            raise Refused(f"{path}: no pictures in there ({', '.join(sorted(PICTURE_SUFFIXES))})")
        return inside
    if path.is_file():
        return [path]
    raise Refused(f"{path}: " + ("neither a file nor a folder" if path.exists() else "there is no such file"))


_Made = tuple[Path | None, dict[str, Any], tuple[Image, ...]]


def _embedding(asked: Asked, files: Sequence[Path]) -> Iterator[_Made]:
    if not asked.texts and not files:
        raise Refused('embedding needs --text "…", or files: pictures, or texts')
    for text in asked.texts:
        yield None, {"text": text}, ()
    for file in files:
        if file.suffix.lower() in PICTURE_SUFFIXES:
            image = asked.image(file)
            yield file, {"filepath": image}, (image,)
        else:
            yield file, {"text": _text_of(file)}, ()


def _llm(asked: Asked, files: Sequence[Path]) -> Iterator[_Made]:
    prompts = [*asked.prompts, *asked.texts]
    if not prompts and not files:
        raise Refused('this type needs --prompt "…", or files with prompts')
    for file in files or (None,):
        for prompt in prompts or ("",):
            parts = [prompt, "" if file is None else _text_of(file)]
            words = "\n\n".join(filter(None, parts))
            yield file, {"messages": [*_system(asked), {"role": "user", "content": words}]}, ()


def _vlm(asked: Asked, files: Sequence[Path]) -> Iterator[_Made]:
    prompts = [*asked.prompts, *asked.texts]
    if not prompts and not files:
        raise Refused('this type needs --prompt "…", or pictures, or both')
    system = [
        {**message, "content": [{"type": "text", "text": message["content"]}]} for message in _system(asked)
    ]
    for file in files or (None,):
        for prompt in prompts or (_DESCRIBE,):
            image = None if file is None else asked.image(file)
            content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
            if image is not None:
                content.append({"type": "image", "image": image})
            messages = [*system, {"role": "user", "content": content}]
            yield file, {"messages": messages}, () if image is None else (image,)


def _caption(asked: Asked, files: Sequence[Path]) -> Iterator[_Made]:
    for file in _needed(files):
        for query in asked.prompts or (None,):
            image = asked.image(file)
            yield file, {"images": [image], **({} if query is None else {"query": query})}, (image,)


def _object_detection(asked: Asked, files: Sequence[Path]) -> Iterator[_Made]:
    for file in _needed(files):
        image = asked.image(file)
        yield file, {"filepath": image}, (image,)


def _segmentation(asked: Asked, files: Sequence[Path]) -> Iterator[_Made]:
    prompts = {"prompts": list(asked.prompts)} if asked.prompts else {}
    for file in _needed(files):
        image = asked.image(file)
        yield file, {"filepath": image, **prompts}, (image,)


def _video_segmentation(asked: Asked, files: Sequence[Path]) -> Iterator[_Made]:
    prompts = {"prompts": list(asked.prompts)} if asked.prompts else {}
    for file in _needed(files):
        image = asked.image(file)
        yield file, {"cross_job_id": asked.session, "current_frame": image, **prompts}, (image,)


def _motion_energy(asked: Asked, files: Sequence[Path]) -> Iterator[_Made]:
    for file in _needed(files):
        image = asked.image(file)
        yield file, {"media_id": asked.session, "current_frame": image}, (image,)


# Somebody's own: the names that the spec's types have most in common.
def _of_another_type(asked: Asked, files: Sequence[Path]) -> Iterator[_Made]:
    for text in asked.texts:
        yield None, {"text": text}, ()
    for prompt in asked.prompts:
        yield None, {"prompt": prompt}, ()
    for file in files:
        image = asked.image(file)
        yield file, {"filepath": image}, (image,)
    if not (asked.texts or asked.prompts or files):
        if not asked.fields:
            raise Refused("nothing to send: give files, --text, --prompt or --field NAME=VALUE")
        yield None, {}, ()


_MAKERS: Final[Mapping[str, Callable[[Asked, Sequence[Path]], Iterator[_Made]]]] = {
    "embedding": _embedding,
    "llm": _llm,
    "vlm": _vlm,
    "caption": _caption,
    "object_detection": _object_detection,
    "segmentation": _segmentation,
    "video_segmentation": _video_segmentation,
    "motion_energy": _motion_energy,
}


def _system(asked: Asked) -> list[dict[str, str]]:
    return [] if asked.system is None else [{"role": "system", "content": asked.system}]


def _needed(files: Sequence[Path]) -> Sequence[Path]:
    if not files:
        raise Refused("this type needs pictures: name files, or a folder")
    return files


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Refused(f"{file}: neither a known kind of picture nor text in UTF-8") from None


# --- From lines of JSON ------------------------------------------------------------------------------------


def from_line(line: bytes, worker_type: str | None, asked: Asked) -> Entry:
    """A job of a line: ``{"worker_type": "…", "input": {…}}``, and perhaps ``id``, ``timeout`` and ``extra``.

    Args:
        line: JSON, in UTF-8.
        worker_type: For lines that name none.
        asked: Its `image` and `fields` count here.

    Raises:
        Refused: it is not that.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused(f"not a line of JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Refused('expected an object, as in {"worker_type": "embedding", "input": {"text": "hello"}}')
    for name in fields:
        if name not in _FIELDS:
            raise Refused(f"{name!r} means nothing here; known are {', '.join(_FIELDS)}")
    wanted, job_input, extra = (
        fields.get("worker_type", worker_type),
        fields.get("input"),
        fields.get("extra"),
    )
    if not isinstance(wanted, str) or not wanted:
        raise Refused("worker_type: expected text, in each line or on the command line")
    if not isinstance(job_input, dict):
        raise Refused("input: expected an object")
    if not isinstance(extra, dict | None):
        raise Refused("extra: expected an object")
    pictures: list[Image] = []
    return Entry(
        worker_type=wanted,
        input={**_with_files(job_input, asked, pictures, 0), **asked.fields},
        timeout=_timeout(fields.get("timeout")),
        extra=extra,
        file=None,
        pictures=tuple(pictures),
        given_id=fields.get("id"),
    )


def _timeout(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise Refused("timeout: expected a number of seconds above 0")
    return float(value)


# The same value with files in the places that name them.
def _with_files(value: Any, asked: Asked, pictures: list[Image], depth: int) -> Any:
    if depth > _MOST_DEPTH:
        raise Refused(f"input: nested more than {_MOST_DEPTH} deep")
    if isinstance(value, list):
        return [_with_files(one, asked, pictures, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(kind, path)] = value.items()
        if kind in ("$image", "$document"):
            if not isinstance(path, str):
                raise Refused(f"{kind}: expected the path of a file")
            if kind == "$document":
                return Document(Path(path))
            pictures.append(asked.image(Path(path)))
            return pictures[-1]
    return {key: _with_files(one, asked, pictures, depth + 1) for key, one in value.items()}
