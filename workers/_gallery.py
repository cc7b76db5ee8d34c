"""One picture per vision worker, with its result drawn on what it was shown: do the models see what we see?

Each worker runs as its own program and gets its jobs from a real engine, one worker after the other, because
some need the memory. So what is drawn is what a client would have been answered, and a worker that crashes
costs the gallery one picture.

Workers know nothing of orbtrio but its part for workers. This module is no worker but one who looks at them,
hence the engine, and `orbtrio.drawing`.
"""

from __future__ import annotations

import io
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
from PIL import Image, ImageOps, UnidentifiedImageError

import orbtrio
from orbtrio.drawing import chart, draw, sheet
from orbtrio.errors import ConfigError, OrbError

from ._catalogue import HUGGINGFACE, KINDS, look

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

__all__ = ["make_gallery"]

# In the public domain, or CC0; enough of what small models know.
_PHOTOGRAPHS: Final = ("astronaut", "chelsea", "coffee", "rocket")
# As far as a vision worker looks, and well below the 2 MiB of a resource.
_MOST_SIDE: Final = 1280
_LOADING: Final = 300.0
_FRAMES: Final = 12
_STILL_FRAMES: Final = 8
_LINES_SHOWN: Final = 8
_QUESTION: Final = "What is in this picture?"


@attrs.frozen
class _Failed(Exception):
    why: str


def make_gallery(
    folder: Path, pictures: Sequence[Path], only: Sequence[str], say: Callable[[str], None]
) -> list[Path]:
    """Write ``TYPE.png`` for each vision worker whose model is installed.

    Args:
        folder: Where to; made if need be.
        pictures: What to show the workers; else some photographs of scikit-image.
        only: Worker types, if not all.
        say: Told what was written, and what was not and why.

    Returns:
        What was written.

    Raises:
        ConfigError: nothing can be drawn; the text says what to install or to change.
    """
    types = _choose(only, say)
    shown = _read(pictures) if pictures else _photographs()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None
    return trio.run(_draw_all, folder, types, shown, say)


def _choose(only: Sequence[str], say: Callable[[str], None]) -> list[str]:
    model_id = os.environ.get("MODEL_ID", "builtin") or "builtin"
    for name in only:
        if name not in _ASK:
            raise ConfigError(f"--only {name}: no vision worker; there are {', '.join(_ASK)}")
    if model_id != "builtin" and len(only) != 1:
        raise ConfigError(f"MODEL_ID is {model_id!r}: say which worker it is for, with --only TYPE")
    chosen = []
    for name in only or _ASK:
        model = KINDS[name].builtin if model_id == "builtin" else HUGGINGFACE
        if model is None:
            if only:
                raise ConfigError(f"{name} has no builtin model: set MODEL_ID, e.g. {KINDS[name].example}")
            continue
        if command := look(model).command:
            say(f"{name}: not installed: {command}")
        else:
            chosen.append(name)
    if not chosen:
        raise ConfigError("no vision worker is installed")
    return chosen


# --- What they are shown -----------------------------------------------------------------------------------


def _read(paths: Sequence[Path]) -> dict[str, Image.Image]:
    pictures = {}
    for path in paths:
        try:
            with Image.open(path) as image:
                pictures[path.name] = _bounded(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ConfigError(f"{path}: not a picture that can be read ({type(error).__name__})") from None
    return pictures


def _photographs() -> dict[str, Image.Image]:
    try:
        import skimage.data
    except ModuleNotFoundError:
        raise ConfigError(
            "no photographs: name some pictures, or get those of scikit-image: pip install scikit-image"
        ) from None
    return {name: Image.fromarray(getattr(skimage.data, name)()) for name in _PHOTOGRAPHS}


def _bounded(image: Image.Image) -> Image.Image:
    image.thumbnail((_MOST_SIDE, _MOST_SIDE))
    return image


def _encoded(image: Image.Image) -> orbtrio.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return orbtrio.Image(file.getvalue())


# A camera that moves across the first two pictures, side by side.
def _pan(pictures: Sequence[Image.Image], frames: int) -> list[Image.Image]:
    height = min(360, *(picture.height for picture in pictures[:2]), _MOST_SIDE)
    scaled = [picture.resize((picture.width * height // picture.height, height)) for picture in pictures[:2]]
    wall = Image.new("RGB", (sum(picture.width for picture in scaled), height))
    left = 0
    for picture in scaled:
        wall.paste(picture, (left, 0))
        left += picture.width
    # There must be something left to move to, and not so much that nothing is seen twice.
    view = min(max(height * 3 // 2, wall.width // 3), wall.width * 2 // 3)
    steps = [(wall.width - view) * step // (frames - 1) for step in range(frames)]
    return [wall.crop((left, 0, left + view, height)) for left in steps]


# --- What they are asked -----------------------------------------------------------------------------------


@attrs.frozen
class _Desk:
    """Where jobs are handed in."""

    engine: orbtrio.Engine
    worker_type: str

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """A worker's answer."""
        return await self.engine.submit(self.worker_type, fields)


async def _each(
    desk: _Desk, title: str, pictures: dict[str, Image.Image], ask: Callable[[Image.Image], dict[str, Any]]
) -> Image.Image:
    drawn: dict[str, tuple[Image.Image, str]] = {}

    async def one(name: str, picture: Image.Image) -> None:
        output = await desk.ask(**ask(picture))
        nothing = not (output.get("detections", True) and output.get("labels", True))
        drawn[name] = (draw(picture, output) or picture, f"{name}: nothing found" if nothing else name)

    async with trio.open_nursery() as nursery:
        for name, picture in pictures.items():
            nursery.start_soon(one, name, picture)
    columns = min(2, len(pictures))
    return sheet(title, [drawn[name] for name in pictures], columns=columns)


async def _ask_filepath(desk: _Desk, title: str, pictures: dict[str, Image.Image]) -> Image.Image:
    return await _each(desk, title, pictures, lambda picture: {"filepath": _encoded(picture)})


async def _ask_caption(desk: _Desk, title: str, pictures: dict[str, Image.Image]) -> Image.Image:
    return await _each(desk, title, pictures, lambda picture: {"images": [_encoded(picture)]})


async def _ask_vlm(desk: _Desk, title: str, pictures: dict[str, Image.Image]) -> Image.Image:
    def ask(picture: Image.Image) -> dict[str, Any]:
        parts = [{"type": "text", "text": _QUESTION}, {"type": "image", "image": _encoded(picture)}]
        return {"messages": [{"role": "user", "content": parts}]}

    return await _each(desk, title, pictures, ask)


async def _ask_video(desk: _Desk, title: str, pictures: dict[str, Image.Image]) -> Image.Image:
    drawn = []
    for place, frame in enumerate(_pan(list(pictures.values()), _FRAMES), 1):
        output = await desk.ask(cross_job_id="gallery", current_frame=_encoded(frame))
        drawn.append((draw(frame, output, letters=1.6) or frame, f"frame {place}"))
    return sheet(title, drawn, columns=3)


async def _ask_motion(desk: _Desk, title: str, pictures: dict[str, Image.Image]) -> Image.Image:
    several = list(pictures.values())
    moving = _pan(several, _FRAMES)
    cut = several[-1].resize(moving[0].size)
    frames = [*[moving[0]] * _STILL_FRAMES, *moving[1:], *[cut] * _STILL_FRAMES]
    energies = []
    for frame in frames:
        output = await desk.ask(media_id="gallery", current_frame=_encoded(frame))
        energies.append(float(output["motion_energy"]))
    # The first and the last of each act: still, moving, and after the cut.
    cut_at = len(frames) - _STILL_FRAMES
    marked = [_STILL_FRAMES - 1, _STILL_FRAMES + _FRAMES // 3, cut_at - 1, cut_at]
    strip = sheet(
        title, [(frames[place], f"frame {place + 1}: {energies[place]:.3f}") for place in marked], columns=4
    )
    curve = chart(
        energies,
        size=(strip.width, 420),
        marked=marked,
        name="motion energy by frame: still, panning, a cut, still",
    )
    whole = Image.new("RGB", (strip.width, strip.height + curve.height), (255, 255, 255))
    whole.paste(strip)
    whole.paste(curve, (0, strip.height))
    return whole


_ASK: Final[dict[str, Callable[[_Desk, str, dict[str, Image.Image]], Awaitable[Image.Image]]]] = {
    "object_detection": _ask_filepath,
    "segmentation": _ask_filepath,
    "video_segmentation": _ask_video,
    "motion_energy": _ask_motion,
    "caption": _ask_caption,
    "vlm": _ask_vlm,
}


# --- An engine and one worker ------------------------------------------------------------------------------


async def _draw_all(
    folder: Path, types: Sequence[str], pictures: dict[str, Image.Image], say: Callable[[str], None]
) -> list[Path]:
    made = []
    with (
        tempfile.TemporaryDirectory(prefix="orbtrio-gallery-") as scratch,
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop, signals, nursery.cancel_scope, say)
            for worker_type in types:
                path = folder / f"{worker_type}.png"
                say(f"{worker_type} …")
                began = trio.current_time()
                if problem := await _draw_one(path, worker_type, pictures, Path(scratch)):
                    say(f"{worker_type}: {problem}")
                else:
                    made.append(path)
                    say(f"{path}: {trio.current_time() - began:.1f} s")
            nursery.cancel_scope.cancel()
    return made


# Otherwise a signal would end us on the spot and leave a worker to nobody.
async def _stop(
    signals: AsyncIterator[int], everything: trio.CancelScope, say: Callable[[str], None]
) -> None:
    async for number in signals:
        say(f"{signal.Signals(number).name}: stopped")
        everything.cancel()


# What went wrong, if anything did: with the worker, or with what it answered.
async def _draw_one(path: Path, worker_type: str, pictures: dict[str, Image.Image], scratch: Path) -> str:
    problem = ""
    try:
        async with _open_desk(scratch, worker_type) as desk:
            whole = await _ASK[worker_type](desk, _title(worker_type), pictures)
            await trio.to_thread.run_sync(whole.save, path)
    except* (_Failed, OrbError, OSError, ValueError) as group:
        problem = _first(group)
    return problem


def _title(worker_type: str) -> str:
    model = os.environ.get("MODEL_ID", "builtin")
    builtin = KINDS[worker_type].builtin
    name = builtin.about if model in ("", "builtin") and builtin is not None else model
    return f"{worker_type}   ({name})"


def _first(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.why if isinstance(error, _Failed) else str(error)


@asynccontextmanager
async def _open_desk(folder: Path, worker_type: str) -> AsyncIterator[_Desk]:
    secret = secrets.token_hex()
    config = orbtrio.Config(
        server_host="127.0.0.1", server_port=0, worker_secret=secret, xdg_data_home=folder
    )
    log = folder / f"{worker_type}.log"
    async with orbtrio.open_engine(config) as engine, trio.open_nursery() as nursery:
        environment = {"SERVER_URL": engine.addresses[0], "WORKER_SECRET": secret, "WORKER_TYPE": worker_type}
        nursery.start_soon(_run_worker, worker_type, environment, log)
        with trio.move_on_after(_LOADING) as waiting:
            while not engine.statistics().workers:  # noqa: ASYNC110  (nothing else tells)
                await trio.sleep(0.05)
        if waiting.cancelled_caught:
            raise _Failed(f"its model is not loaded after {_LOADING:.0f} s:\n{_last_lines(log)}")
        yield _Desk(engine, worker_type)
        nursery.cancel_scope.cancel()


async def _run_worker(worker_type: str, environment: dict[str, str], log: Path) -> None:
    with log.open("wb") as output:
        ended = await trio.run_process(
            [sys.executable, "-m", f"{__package__}.{worker_type}"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "LOG_LEVEL": "warn", **environment},
            start_new_session=True,
            deliver_cancel=_kill,
        )
    raise _Failed(f"its worker ended with status {ended.returncode}:\n{_last_lines(log)}")


# It has nothing in hand, and what it has may take long to be put down.
async def _kill(process: trio.Process) -> None:
    process.kill()


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:])
