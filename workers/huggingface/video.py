"""SAM 3 on video, frame by frame: what the prompts name is found, followed, and keeps its number.

A session holds what the model remembers of one stream. Transformers keeps every frame, every frame's features
and every object for ever, which is right for a film and wrong for a camera. So a session forgets what the
tracker does not look at any more: after each frame it drops frames, features and scores older than the
tracker's memory, all but the newest frames by which an object was learnt, and objects that are long gone.

Frames of a stream may change in size; the masks are those of the frame that was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession

from .._detections import TrackedSegment
from ._common import Place, Source, inferring, is_out_of_memory, release_memory
from ._sam3 import around, image_side, outline, pixels, tokens, wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from .._detections import Mask

EXAMPLES: Final = ("facebook/sam3", "a directory with a Sam3VideoModel")

# Objects that one session follows at most; each costs a pass of the tracker per frame, and memory. From half
# of that on, those that are not seen give way at once.
MOST_OBJECTS: Final = 50

# Frames for which an object that is not seen may still come back under its number.
PATIENCE: Final = 30


class VideoModel:
    """SAM 3 for videos; sessions share its weights."""

    def __init__(self, place: Place, tokenizer: Any, model: Any, side: int) -> None:
        self._place = place
        self._tokenizer = tokenizer
        self._model = model
        self._side = side

    def start(self, prompts: Sequence[str] | None) -> VideoSession:
        """A new stream, in which `prompts` are looked for, or the default ones.

        Raises:
            ValueError: there are too many.
        """
        device = self._place.device
        session = Sam3VideoInferenceSession(
            inference_device=device,
            inference_state_device=device,
            video_storage_device=device,
            dtype=self._place.dtype,
        )
        session.processed_frames = _Newest()
        for prompt in wanted(prompts):
            number = session.add_prompt(prompt)
            words = self._place.take(tokens(self._tokenizer, [prompt]))
            session.prompt_input_ids[number] = words["input_ids"]
            session.prompt_attention_masks[number] = words["attention_mask"]
        return VideoSession(self._place, self._model, self._side, session)


class _Newest(dict[int, Any]):
    """The newest frame alone, whose `len` is that of all: the tracker scales time by it."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = 0

    def __setitem__(self, frame: int, pixel_values: Any) -> None:
        self.clear()
        super().__setitem__(frame, pixel_values)
        self._shown = frame + 1

    def __len__(self) -> int:
        return self._shown


class VideoSession:
    """One stream."""

    def __init__(self, place: Place, model: Any, side: int, session: Any) -> None:
        self._place = place
        self._model = model
        self._side = side
        self._session = session
        self._frame = 0
        self._seen: dict[int, int] = {}  # by number, the last frame with that object
        tracker = model.tracker_model.config
        self._memory = max(tracker.num_maskmem, tracker.max_object_pointers_in_encoder)
        self._learnt = max(tracker.max_cond_frame_num, 1)

    def advance(self, picture: Image.Image) -> list[TrackedSegment]:
        """Show the next frame; returns what is followed in it, by number."""
        try:
            return self._advance(picture)
        except Exception as error:  # Only a lack of memory has an answer of its own.
            if not is_out_of_memory(error):
                raise
        release_memory()
        raise ValueError("the frame does not fit into the memory of this worker: fewer prompts or streams")

    @inferring
    def _advance(self, picture: Image.Image) -> list[TrackedSegment]:
        frame = self._place.take({"frame": pixels([picture], self._side)})["frame"]
        output = self._model(inference_session=self._session, frame=frame, frame_idx=self._frame)
        segments = self._segments(output, picture.size)
        self._seen |= {segment.object_id: self._frame for segment in segments}
        self._forget_objects()
        self._forget_frames()
        self._frame += 1
        return segments

    # As Sam3VideoProcessor.postprocess_outputs: a pixel belongs to one object of a prompt, the surest.
    def _segments(self, output: Any, size: tuple[int, int]) -> list[TrackedSegment]:
        session = self._session
        hidden = set(output.suppressed_obj_ids or ()) | set(session.hotstart_removed_obj_ids)
        surest = sorted(
            (number for number in output.obj_id_to_mask if number not in hidden),
            key=lambda number: -output.obj_id_to_tracker_score.get(number, 0.0),
        )
        taken: dict[int, Mask] = {}
        segments = []
        for number in surest:
            prompt = session.obj_id_to_prompt_id[number]
            mask = outline(output.obj_id_to_mask[number][0], size)
            mask &= ~taken.get(prompt, np.zeros_like(mask))
            if mask.any():
                taken[prompt] = taken[prompt] | mask if prompt in taken else mask
                segments.append(
                    TrackedSegment(
                        object_id=int(number),
                        label=session.prompts[prompt],
                        score=min(max(float(output.obj_id_to_score[number]), 0.0), 1.0),
                        box=around(mask),
                        mask=mask,
                    )
                )
        return sorted(segments, key=lambda segment: segment.object_id)

    def _forget_objects(self) -> None:
        session = self._session
        last = {number: self._seen.setdefault(number, self._frame) for number in session.obj_ids}
        unseen = sorted((number for number in last if last[number] < self._frame), key=last.__getitem__)
        too_many = len(last) - MOST_OBJECTS // 2
        for place, number in enumerate(unseen):
            if place < too_many or self._frame - last[number] > PATIENCE:
                session.remove_object(number)
        known = set(session.obj_ids)
        for by_number in (
            self._seen,
            session.obj_id_to_score,
            session.obj_id_to_last_occluded,
            session.obj_first_frame_idx,
            session.trk_keep_alive,
        ):
            for number in [number for number in by_number if number not in known]:
                del by_number[number]

    # What is left is what the next frame needs: see _gather_memory_frame_outputs of the tracker.
    def _forget_frames(self) -> None:
        session, oldest = self._session, self._frame - self._memory
        for by_frame in (session.suppressed_obj_ids, session.obj_id_to_tracker_score_frame_wise):
            _drop(by_frame, oldest)
        for inputs in session.mask_inputs_per_obj.values():
            inputs.clear()
        for outputs in session.output_dict_per_obj.values():
            _drop(outputs["non_cond_frame_outputs"], oldest)
            learnt = sorted(outputs["cond_frame_outputs"])
            for frame in learnt[: -self._learnt]:
                del outputs["cond_frame_outputs"][frame]
        for frames in session.frames_tracked_per_obj.values():
            _drop(frames, oldest)
        # Counted only for films: a stream has no later frames by which to take an object back.
        session.unmatched_frame_inds.clear()
        session.overlap_pair_to_frame_inds.clear()


def load(model_id: str) -> VideoModel:
    """Load SAM 3 for videos.

    Raises:
        ConfigError: it cannot be loaded, or is none.
    """
    source = Source(model_id, "a model that follows what is named through a video", EXAMPLES)
    config = source.part("AutoConfig")
    if config.model_type != "sam3_video":
        raise source.wrong_kind(f"{config.model_type} is not sam3_video")
    tokenizer = source.part("AutoTokenizer")
    model = source.model("Sam3VideoModel")
    model.max_num_objects = min(model.max_num_objects, MOST_OBJECTS)
    return VideoModel(source.place, tokenizer, model, image_side(source, config))


def _drop(by_frame: dict[int, Any], oldest: int) -> None:
    for frame in [frame for frame in by_frame if frame < oldest]:
        del by_frame[frame]
