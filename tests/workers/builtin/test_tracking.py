"""Who is who from frame to frame. Boxes come from the test, outlines from nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from workers._detections import Detection
from workers.builtin import tracking, u2net
from workers.builtin.labels import Labels
from workers.builtin.tracking import OUTLINES_A_FRAME, PATIENCE, Tracker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workers._detections import Box, TrackedSegment

WIDTH, HEIGHT = 400, 200


class Scene:
    """Detector and outlines at once, of frames that the test describes."""

    def __init__(self, prompts: list[str] | None = None) -> None:
        self.things: list[Detection] = []
        self.outlined: list[Box] = []
        segmenter = u2net.Segmenter(self, self, Labels(("person", "cat"), None))  # type: ignore[arg-type]
        self.session = Tracker(segmenter).start(prompts)

    def detect(self, pictures: Sequence[Image.Image], *, least: float = 0.6) -> list[list[Detection]]:
        assert len(pictures) == 1
        return [[one for one in self.things if one.score >= least]]

    def outline(self, picture: Image.Image, box: Box) -> u2net.Outline:
        self.outlined.append(box)
        return u2net.Outline(np.full((320, 320), 255, np.uint8))

    def frame(self, *things: Detection, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[TrackedSegment]:
        self.things = list(things)
        self.outlined.clear()
        return self.session.advance(Image.new("RGB", size))

    def ids(self, *things: Detection) -> list[int]:
        return [segment.object_id for segment in self.frame(*things)]


def thing(
    x: float, y: float = 50.0, *, width: float = 40.0, label: str = "person", score: float = 0.9
) -> Detection:
    return Detection(label=label, score=score, box=(x, y, x + width, y + 100.0))


def steps(start: float, by: float, count: int) -> Iterable[float]:
    return (start + by * number for number in range(count))


# --- Numbers -----------------------------------------------------------------------------------------------


def test_things_keep_their_numbers_in_whatever_order_they_are_found() -> None:
    scene = Scene()
    assert scene.ids(thing(10), thing(200)) == [1, 2]
    for x in steps(5, 5, 10):
        segments = scene.frame(thing(200 - x), thing(10 + x))
        assert [segment.object_id for segment in segments] == [1, 2]
        assert [segment.box[0] for segment in segments] == pytest.approx([10 + x, 200 - x])


def test_segment_says_what_is_seen_now() -> None:
    scene = Scene()
    scene.frame(thing(10))
    (segment,) = scene.frame(thing(20, score=0.7))
    assert (segment.label, segment.score) == ("person", 0.7)
    assert segment.box == pytest.approx((20, 50, 60, 150))
    assert segment.mask.shape == (HEIGHT, WIDTH)
    assert segment.mask[50:150, 20:60].all()
    assert segment.mask.sum() == 40 * 100


def test_speed_is_foreseen() -> None:
    """Each step is longer than the thing is wide; but the first, which nobody could foresee."""
    scene = Scene()
    scene.ids(thing(0), thing(5, label="cat"))
    scene.ids(thing(25), thing(5, label="cat"))
    x, step = 25.0, 25.0
    for _ in range(5):
        step += 7
        x += step
        assert scene.ids(thing(5, label="cat"), thing(x)) == [1, 2]


def test_thing_that_comes_closer_is_the_same() -> None:
    scene = Scene()
    for number in range(8):
        size = 20 * 1.3**number
        box = (200 - size, 100 - size / 2, 200 + size, 100 + size / 2)
        assert scene.ids(Detection(label="cat", score=0.9, box=box)) == [1]


def test_things_of_other_names_are_others() -> None:
    scene = Scene()
    assert scene.ids(thing(10)) == [1]
    assert scene.ids(thing(10, label="cat")) == [2]


def test_best_pair_is_first() -> None:
    scene = Scene()
    scene.frame(thing(100), thing(120))
    segments = scene.frame(thing(119), thing(99))
    assert [(one.object_id, round(one.box[0])) for one in segments] == [(1, 99), (2, 119)]


def test_jump_is_another_thing() -> None:
    scene = Scene()
    assert scene.ids(thing(10)) == [1]
    assert scene.ids(thing(300)) == [2]


def test_frames_may_change_in_size() -> None:
    scene = Scene()
    scene.frame(thing(100))
    (segment,) = scene.frame(
        Detection(label="person", score=0.9, box=(205.0, 100.0, 285.0, 300.0)), size=(2 * WIDTH, 2 * HEIGHT)
    )
    assert segment.object_id == 1
    assert segment.mask.shape == (2 * HEIGHT, 2 * WIDTH)


def test_sessions_are_apart() -> None:
    one, other = Scene(), Scene()
    assert one.ids(thing(10)) == other.ids(thing(10)) == [1]
    assert one.ids(thing(10), thing(200)) == [1, 2]
    assert other.ids(thing(10)) == [1]


def test_only_what_is_asked_for_is_followed() -> None:
    scene = Scene(["cats"])
    segments = scene.frame(thing(10), thing(200, label="cat"))
    assert [(one.object_id, one.label) for one in segments] == [(1, "cat")]


# --- Doubt -------------------------------------------------------------------------------------------------


def test_faint_thing_is_followed_but_does_not_begin() -> None:
    scene = Scene()
    assert scene.ids(thing(10, score=0.5)) == []
    assert scene.ids(thing(10, score=0.7)) == [1]
    assert scene.ids(thing(10, score=0.4)) == [1]
    assert scene.ids(thing(10, score=0.3)) == []


def test_hidden_thing_is_waited_for_where_it_should_be() -> None:
    scene = Scene()
    for x in (0, 15, 30):
        assert scene.ids(thing(x)) == [1]
    for _ in range(PATIENCE):
        assert scene.ids() == []
    assert scene.ids(thing(30 + 15 * (PATIENCE + 1))) == [1]


def test_thing_that_stays_away_is_forgotten() -> None:
    scene = Scene()
    scene.ids(thing(100))
    for _ in range(PATIENCE + 1):
        scene.ids()
    assert scene.ids(thing(100)) == [2]
    assert len(scene.session._tracks) == 1


def test_thing_that_walks_out_of_the_picture_is_forgotten_at_once() -> None:
    scene = Scene()
    for x in (310, 335, 359):
        scene.ids(thing(x))
    scene.ids()
    scene.ids()
    assert scene.session._tracks == []
    assert scene.ids(thing(359)) == [2]


def test_crowd_is_bounded() -> None:
    scene = Scene()
    for number in range(10):
        y = 10.0 * number
        ids = scene.ids(*(thing(12.0 * place, y, width=8) for place in range(30)))
        assert len(ids) <= 2 * u2net.MOST_SEGMENTS
        assert len(scene.session._tracks) <= 2 * u2net.MOST_SEGMENTS


# --- Outlines ----------------------------------------------------------------------------------------------


def test_few_things_are_outlined_in_every_frame() -> None:
    scene = Scene()
    for x in steps(0, 5, 4):
        things = [thing(x), thing(100 + x), thing(200 + x)]
        scene.frame(*things)
        np.testing.assert_allclose(sorted(scene.outlined), [one.box for one in things])


def test_of_many_things_the_new_and_the_longest_unseen_are_outlined() -> None:
    scene = Scene()
    things = [thing(60.0 * place) for place in range(5)]
    scene.frame(*things)
    assert len(scene.outlined) == 5, "each needs one to begin with"
    last: set[int] = set()
    for _ in range(5):
        scene.frame(*things)
        assert len(scene.outlined) == OUTLINES_A_FRAME
        now = {round(box[0]) for box in scene.outlined}
        assert not last or now | last == {0, 60, 120, 180, 240}
        last = now


def test_outline_that_is_not_renewed_moves_with_its_box() -> None:
    scene = Scene()
    things = [thing(60.0 * place) for place in range(5)]
    scene.frame(*things)
    segments = scene.frame(*(thing(60.0 * place + 8) for place in range(5)))
    for segment in segments:
        left = round(segment.box[0])
        assert segment.mask[50:150, left : left + 40].all()
        assert segment.mask.sum() <= 41 * 101


# --- Loading -----------------------------------------------------------------------------------------------


def test_tracker_needs_what_segmentation_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(u2net, "load", asked.append)
    assert isinstance(tracking.load(), Tracker)
    assert asked == ["video-segmentation"]
