"""What workers say about pictures, drawn where they say it: boxes, labels, scores, outlines, words, curves.

`draw` takes a picture and the output of any worker whose shape the spec prints, and knows by its fields what
to draw. Made for whoever wants to see whether results are right: the client's ``--pictures``, the workers'
gallery. Needs Pillow and nothing else; masks are decoded here, because the client has no numpy.

A colour belongs to an object: where the output has numbers that stay with each, to that number, so that it
is the same in every frame.

Spec: "Message Shapes by Worker Type".
"""

from __future__ import annotations

import functools
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["chart", "colour_of", "decode_mask", "draw", "sheet"]

Colour: TypeAlias = tuple[int, int, int]
_Box: TypeAlias = tuple[float, float, float, float]

# Apart from each other also for most people who see fewer colours; white text is readable on each.
_COLOURS: Final[tuple[Colour, ...]] = (
    (0x1D, 0x5F, 0xD1),
    (0xD6, 0x27, 0x4B),
    (0x1B, 0x87, 0x3C),
    (0xC2, 0x5A, 0x06),
    (0x7A, 0x3A, 0xD6),
    (0x0B, 0x7C, 0x93),
    (0xB8, 0x2C, 0x9B),
    (0x6B, 0x5B, 0x0B),
)
_PAPER: Final = (255, 255, 255)
_INK: Final = (31, 41, 51)
_FAINT: Final = (203, 210, 217)
_OPACITY: Final = 0.42

# Smaller pictures are enlarged first, or their labels would cover them.
_LEAST_SIDE: Final = 640
# A mask comes from a worker, and says itself how large it is.
_MOST_PIXELS: Final = 1 << 26
_MOST_WORDS: Final = 600


@attrs.frozen(kw_only=True)
class _Thing:
    """Something to draw; in pixels of the picture that was sent."""

    words: str
    colour: Colour
    box: _Box | None = None
    mask: Image.Image | None = None


def draw(picture: Image.Image, output: Mapping[str, Any], *, letters: float = 1.0) -> Image.Image | None:
    """Draw what a worker found on the picture that it found it in.

    Args:
        picture: As the worker saw it, turned upright. It is not changed.
        output: The worker's fields.
        letters: How large words are; more for a picture that will be shown small.

    Returns:
        A new picture, at least 640 pixels wide or high; None if there is nothing in the output to draw.

    Raises:
        ValueError: the output's fields are not of the shape that the spec prints.
    """
    words = _words(output)
    if words is None and not output.keys() & {"detections", "masks", "boxes"}:
        return None
    try:
        things = list(_things(output))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"not a result that can be drawn: {type(error).__name__}: {error}") from None
    drawn = picture.convert("RGB")
    factor = max(1.0, _LEAST_SIDE / max(drawn.size))
    if factor > 1:
        size = (round(drawn.width * factor), round(drawn.height * factor))
        drawn = drawn.resize(size, Image.Resampling.BICUBIC)
    for thing in sorted(things, key=_area, reverse=True):
        if thing.mask is not None:
            _tint(drawn, thing.mask, thing.colour)
    font = _font(max(13, letters * max(drawn.size) / 36))
    _draw_boxes(drawn, things, factor, font)
    return drawn if words is None else _with_words(drawn, words, font)


def _area(thing: _Thing) -> float:
    if thing.box is None:
        return 0.0
    x_min, y_min, x_max, y_max = thing.box
    return (x_max - x_min) * (y_max - y_min)


# --- What there is to draw -------------------------------------------------------------------------------


def _things(output: Mapping[str, Any]) -> Iterator[_Thing]:
    for place, one in enumerate(output.get("detections") or ()):
        box = one["box"]
        corners = _box([box["x_min"], box["y_min"], box["x_max"], box["y_max"]])
        yield _Thing(words=f"{one['label']} {_score(one['score'])}", colour=colour_of(place), box=corners)
    masks, boxes = output.get("masks") or (), output.get("boxes") or ()
    labels, scores = output.get("labels") or (), output.get("scores") or ()
    numbers = output.get("objects")
    for place in range(max(len(masks), len(boxes))):
        number = place if numbers is None else int(numbers[place])
        words = [
            str(labels[place]) if place < len(labels) else "",
            "" if numbers is None else f"#{number}",
            _score(scores[place]) if place < len(scores) else "",
        ]
        yield _Thing(
            words=" ".join(filter(None, words)),
            colour=colour_of(number),
            box=_box(boxes[place]) if place < len(boxes) else None,
            mask=decode_mask(masks[place]) if place < len(masks) else None,
        )


def _words(output: Mapping[str, Any]) -> str | None:
    if isinstance(output.get("response"), str):
        return textwrap.shorten(output["response"], _MOST_WORDS, placeholder=" …")
    if isinstance(output.get("motion_energy"), (int, float)):
        return f"motion energy {output['motion_energy']:.3f}"
    return None


def _box(values: Sequence[float]) -> _Box:
    x_min, y_min, x_max, y_max = map(float, values)
    if not (abs(x_min) < 1e6 and abs(y_min) < 1e6 and abs(x_max) < 1e6 and abs(y_max) < 1e6):
        raise ValueError("a box is far outside of any picture")
    return (min(x_min, x_max), min(y_min, y_max), max(x_min, x_max), max(y_min, y_max))


def _score(score: float) -> str:
    return f"{float(score):.2f}"


def colour_of(number: int) -> Colour:
    """The colour that belongs to the object with this number."""
    return _COLOURS[number % len(_COLOURS)]


def decode_mask(mask: Mapping[str, Any]) -> Image.Image:
    """A mask in COCO's run-length encoding as a picture, 255 where the object is.

    Args:
        mask: ``size``, ``[height, width]``; ``counts``, as text, or as a list of lengths.

    Raises:
        ValueError: it is no such thing.
    """
    try:
        height, width = mask["size"]
        counts = mask["counts"]
        lengths = _lengths(counts) if isinstance(counts, str) else list(counts)
        fits = 0 < height * width <= _MOST_PIXELS and min(lengths) >= 0 and sum(lengths) == height * width
        if not fits:
            raise ValueError(f"the runs do not make up {height}x{width} pixels")
        # Column by column, so it is read as a picture that lies on its side.
        pixels = b"".join((b"\xff" if place % 2 else b"\0") * length for place, length in enumerate(lengths))
        return Image.frombytes("L", (height, width), pixels).transpose(Image.Transpose.TRANSPOSE)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"not a mask in COCO's encoding: {error}") from None


# Numbers of five bits a character, lowest first; from the third on, differences to the one two before.
def _lengths(text: str) -> list[int]:
    lengths: list[int] = []
    number = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError("a character that does not belong there")
        number |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            number -= 1 << shift
        lengths.append(number + lengths[-2] if len(lengths) > 2 else number)
        number = shift = 0
    if shift:
        raise ValueError("it ends in the middle of a number")
    return lengths


# --- How it is drawn -------------------------------------------------------------------------------------


def _tint(picture: Image.Image, mask: Image.Image, colour: Colour) -> None:
    if mask.size != picture.size:
        mask = mask.resize(picture.size, Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 127))
    picture.paste(colour, mask=mask.point(lambda value: round(value * _OPACITY)))
    # An edge in the full colour, or two things of like colours would flow into each other.
    width = max(3, 2 * round(max(picture.size) / 500) + 1)
    edge = ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(width)))
    picture.paste(colour, mask=edge)


def _draw_boxes(picture: Image.Image, things: Sequence[_Thing], factor: float, font: Any) -> None:
    pen = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 320))
    for thing in things:
        if thing.box is not None:
            pen.rectangle([value * factor for value in thing.box], outline=thing.colour, width=line)
    # Labels last, and each where it covers none of those before, if there is such a place.
    _, top, _, bottom = map(round, pen.textbbox((0, 0), "Adg", font=font, anchor="ls"))
    margin = max(2, (bottom - top) // 5)
    taken: list[_Box] = []
    for thing in things:
        if not thing.words:
            continue
        corners = thing.box or (0, 0, picture.width / factor, picture.height / factor)
        size = (pen.textlength(thing.words, font=font) + 2 * margin, bottom - top + 2 * margin)
        place = _free_place([value * factor for value in corners], size, picture.size, taken, line)
        taken.append(place)
        pen.rectangle(place, fill=thing.colour)
        baseline = (round(place[0]) + margin, round(place[1]) + margin - top)
        pen.text(baseline, thing.words, fill=_PAPER, font=font, anchor="ls")


def _free_place(
    box: Sequence[float],
    size: tuple[float, float],
    picture: tuple[int, int],
    taken: Sequence[_Box],
    line: int,
) -> _Box:
    (width, height), (x_min, y_min, x_max, y_max) = size, box
    corners = [
        (x_min, y_min - height + line),
        (x_min, y_min),
        (x_max - width, y_min),
        (x_max - width, y_min - height + line),
        (x_min, y_max - height),
        (x_min, y_max - line),
        (x_max - width, y_max - height),
        *((x_min, y_min + step * height) for step in range(1, 12)),
    ]
    places = [_inside(left, top, size, picture) for left, top in corners]
    return next((place for place in places if not any(_touch(place, other) for other in taken)), places[0])


def _inside(left: float, top: float, size: tuple[float, float], picture: tuple[int, int]) -> _Box:
    left = max(0.0, min(left, picture[0] - size[0]))
    top = max(0.0, min(top, picture[1] - size[1]))
    return (left, top, left + size[0], top + size[1])


def _touch(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


# Pillow brings a font that knows English and little else; most systems have one that knows more.
@functools.cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf"):
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _with_words(picture: Image.Image, words: str, font: Any) -> Image.Image:
    pen = ImageDraw.Draw(picture)
    margin = round(picture.width * 0.025)
    letter = pen.textlength("abcdefghijklmnopqrst", font=font) / 20
    text = "\n".join(textwrap.wrap(words, max(10, int((picture.width - 2 * margin) / letter))))
    _, top, _, bottom = pen.multiline_textbbox((0, 0), text, font=font)
    whole = Image.new("RGB", (picture.width, round(picture.height + bottom - top + 2 * margin)), _PAPER)
    whole.paste(picture)
    ImageDraw.Draw(whole).multiline_text((margin, picture.height + margin - top), text, fill=_INK, font=font)
    return whole


# --- Several pictures on one sheet -----------------------------------------------------------------------


def sheet(
    title: str, pictures: Sequence[tuple[Image.Image, str]], *, columns: int, width: int = 1600
) -> Image.Image:
    """Pictures side by side, each with words below it, under a title.

    Args:
        title: One line.
        pictures: Each with its words, which may be empty. Those of a row become equally high.
        columns: How many beside each other.
        width: Of the sheet, in pixels.
    """
    gap, line = width // 80, width // 50
    head, foot = _font(width / 45), _font(width / 80)
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    shapes = [[one.width / one.height for one, _ in row] for row in rows]
    heights = [int((width - gap * (len(row) + 1)) / sum(row)) for row in shapes]
    # A last row that is not full would otherwise outgrow the others.
    heights[-1] = min(heights[-1], max(heights[:-1], default=heights[-1]))
    below = gap + (line if any(words for _, words in pictures) else 0)
    whole = Image.new("RGB", (width, gap + 2 * line + sum(heights) + below * len(rows)), _PAPER)
    pen = ImageDraw.Draw(whole)
    pen.text((gap, gap), title, fill=_INK, font=head)
    top = gap + 2 * line
    for row, height in zip(rows, heights, strict=True):
        left = gap
        for one, words in row:
            size = (max(1, round(one.width * height / one.height)), max(1, height))
            whole.paste(one.resize(size, Image.Resampling.LANCZOS), (left, top))
            pen.text((left, top + height + gap // 4), words, fill=_INK, font=foot)
            left += size[0] + gap
        top += height + below
    return whole


def chart(
    values: Sequence[float], *, size: tuple[int, int], marked: Sequence[int] = (), name: str = ""
) -> Image.Image:
    """A curve from left to right, from 0 at the bottom to a little more than its highest value.

    Args:
        values: From 0 up; at least one.
        size: Of the picture, in pixels.
        marked: Places of values that get a dot and their number.
        name: What the values are.
    """
    picture = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(picture)
    width, height = size
    font = _font(max(12, height / 16))
    highest = 1.15 * max(max(values), 1e-9)
    room = pen.textlength("0.0000", font=font)
    left, right, top, bottom = round(room), round(width - room / 2), height // 5, round(height * 0.86)
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - top) * share
        pen.line([(left, y), (right, y)], fill=_FAINT, width=1)
        pen.text((left - room / 8, y), f"{highest * share:.2g}", fill=_INK, font=font, anchor="rm")
    step = (right - left) / max(1, len(values) - 1)
    points = [
        (left + place * step, bottom - (bottom - top) * max(0.0, value) / highest)
        for place, value in enumerate(values)
    ]
    colour = colour_of(0)
    faint = tuple(round(255 - (255 - value) * 0.25) for value in colour)
    pen.polygon([(left, bottom), *points, (points[-1][0], bottom)], fill=faint)
    pen.line(points, fill=colour, width=max(2, height // 100), joint="curve")
    radius = max(3, height // 70)
    for place in marked:
        x, y = points[place]
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_INK)
        words, above = f"{values[place]:.3f}", (x, y - 2 * radius)
        pen.text(above, words, fill=_INK, font=font, anchor="ms", stroke_width=radius, stroke_fill=_PAPER)
        pen.text((x, bottom + radius), f"{place + 1}", fill=_INK, font=font, anchor="ma")
    pen.text((left, height / 30), name, fill=_INK, font=font)
    return picture
