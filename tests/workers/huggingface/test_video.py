"""What a session keeps of a stream, and what it forgets; the model is a script."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from workers.huggingface import video  # noqa: E402
from workers.huggingface._common import Place  # noqa: E402
from workers.huggingface.video import VideoModel  # noqa: E402

CPU = Place("cpu", torch.float32)
FRAME = Image.new("RGB", (8, 4))


def words(prompts: list[str], **options: Any) -> dict[str, Any]:
    ids = torch.zeros(len(prompts), 32, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Script:
    """Plays frames: of each the objects by number, with their logits in four columns."""

    def __init__(self, *frames: dict[int, list[float]], hidden: frozenset[int] = frozenset()) -> None:
        self._frames = frames
        self._hidden = hidden
        self.lengths: list[int] = []
        config = SimpleNamespace(num_maskmem=2, max_object_pointers_in_encoder=3, max_cond_frame_num=2)
        self.tracker_model = SimpleNamespace(config=config)

    def __call__(self, *, inference_session: Any, frame: Any, frame_idx: int) -> SimpleNamespace:
        session = inference_session
        session.add_new_frame(frame, frame_idx)
        self.lengths.append(session.num_frames)
        shown = self._frames[frame_idx]
        for number in shown:
            place = session.obj_id_to_idx(number)
            session.obj_id_to_prompt_id.setdefault(number, 0)
            session.obj_id_to_score.setdefault(number, 1.5)
            session.trk_keep_alive[number] = 1
            session.frames_tracked_per_obj[place][frame_idx] = {}
            for outputs in session.output_dict_per_obj[place].values():
                outputs[frame_idx] = {}
            session.mask_inputs_per_obj[place][frame_idx] = frame
        session.suppressed_obj_ids[frame_idx] = set()
        session.unmatched_frame_inds[0].append(frame_idx)
        return SimpleNamespace(
            obj_id_to_mask={number: torch.tensor([[columns]]) for number, columns in shown.items()},
            obj_id_to_score=session.obj_id_to_score,
            obj_id_to_tracker_score={number: number / 10 for number in shown},
            suppressed_obj_ids=set(self._hidden),
        )


def play(script: Script) -> tuple[list[list[Any]], Any]:
    session = VideoModel(CPU, words, script, 8).start(["cat"])
    return [session.advance(FRAME) for _ in script._frames], session._session


LEFT, RIGHT, ALL, NONE = [1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0], [1.0] * 4, [-1.0] * 4


def test_objects_keep_their_numbers_and_show_their_outline() -> None:
    ((left, right), (still_right,)), _ = play(Script({0: LEFT, 1: RIGHT}, {1: RIGHT}))
    assert (left.object_id, right.object_id, still_right.object_id) == (0, 1, 1)
    assert left.label == "cat"
    assert left.score == 1.0
    assert left.box == (0.0, 0.0, 4.0, 4.0)
    assert left.mask.shape == (4, 8)


def test_a_pixel_belongs_to_the_surest_object() -> None:
    ((left, right),), _ = play(Script({0: ALL, 1: RIGHT}))
    assert left.mask.sum() + right.mask.sum() == 32
    assert right.box == (4.0, 0.0, 8.0, 4.0)


def test_what_is_hidden_or_empty_is_not_shown() -> None:
    seen, _ = play(Script({0: LEFT, 1: RIGHT, 2: NONE}, hidden=frozenset({1})))
    assert [segment.object_id for segment in seen[0]] == [0]


def test_a_stream_of_any_length_takes_the_memory_of_a_few_frames() -> None:
    script = Script(*[{0: LEFT}] * 12)
    _, session = play(script)
    assert script.lengths == list(range(1, 13)), "the tracker scales time by their number"
    assert list(session.processed_frames) == [11]
    outputs = session.output_dict_per_obj[0]
    assert sorted(outputs["non_cond_frame_outputs"]) == [8, 9, 10, 11]
    assert sorted(outputs["cond_frame_outputs"]) == [10, 11]
    assert sorted(session.frames_tracked_per_obj[0]) == [8, 9, 10, 11]
    assert sorted(session.suppressed_obj_ids) == [8, 9, 10, 11]
    assert session.mask_inputs_per_obj[0] == session.unmatched_frame_inds == {}


def test_an_object_that_is_long_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "PATIENCE", 2)
    gone = {0: NONE, 1: LEFT}
    _, session = play(Script({0: LEFT, 1: LEFT}, gone, gone))
    assert session.obj_ids == [0, 1], "it may come back"
    _, session = play(Script({0: LEFT, 1: RIGHT}, gone, gone, gone))
    assert session.obj_ids == [1]
    assert session.obj_id_to_score.keys() == session.trk_keep_alive.keys() == {1}


def test_where_there_are_too_many_those_give_way_that_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MOST_OBJECTS", 4)
    nobody = dict.fromkeys(range(3), NONE)
    _, session = play(Script({0: LEFT, 1: NONE, 2: RIGHT}, {**nobody, 3: LEFT}))
    assert session.obj_ids == [2, 3]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("size mismatch")])
def test_a_lack_of_memory_is_told_and_other_errors_pass(error: Exception) -> None:
    script = Script()

    def fail(**options: Any) -> None:
        raise error

    session = VideoModel(CPU, words, script, 8).start(None)
    session._model = fail
    expected = "does not fit into the memory" if isinstance(error, MemoryError) else "size mismatch"
    with pytest.raises((ValueError, RuntimeError), match=expected):
        session.advance(FRAME)
