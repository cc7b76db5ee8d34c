"""Workers whose answers are not as the page prints them, by worker type."""

from __future__ import annotations

from typing import Any

from orbtrio.conformance.model import Role
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.worker import BadInput, ModelWorker

__all__: list[str] = []


@mutant("embedding-of-wrong-shape", kills=("ORB-WRK-17",), role=Role.WORKER)
class EmbeddingOfWrongShape(ModelWorker):
    """Its shape is that of the batch, not of the vector."""

    def embedding(self, content: bytes) -> dict[str, Any]:
        entry = super().embedding(content)
        return {**entry, "shape": [1, *entry["shape"]]}


@mutant("embedding-of-many-lengths", kills=("ORB-WRK-17",), role=Role.WORKER)
class EmbeddingOfManyLengths(ModelWorker):
    """Its vectors are as long as the text."""

    def embedding(self, content: bytes) -> dict[str, Any]:
        return {"embedding": [float(byte) for byte in content], "shape": [len(content)]}


@mutant("embedding-without-texts", kills=("ORB-WRK-17",), role=Role.WORKER)
class EmbeddingWithoutTexts(ModelWorker):
    """Embeds pictures only."""

    def result(self, job_input: dict[str, Any]) -> dict[str, Any]:
        if "filepath" not in job_input:
            raise BadInput("filepath: expected a path")
        return super().result(job_input)


@mutant("llm-in-tokens", kills=("ORB-WRK-18",), role=Role.WORKER)
class LlmInTokens(ModelWorker):
    """Answers by the list of its tokens."""

    worker_type = "llm"

    def result(self, job_input: dict[str, Any]) -> dict[str, Any]:
        return {"response": super().result(job_input)["response"].split()}


@mutant("vlm-as-text", kills=("ORB-WRK-19",), role=Role.WORKER)
class VlmAsText(ModelWorker):
    """Calls its response `text`."""

    worker_type = "vlm"

    def result(self, job_input: dict[str, Any]) -> dict[str, Any]:
        return {"text": super().result(job_input)["response"]}


@mutant("caption-per-image", kills=("ORB-WRK-20",), role=Role.WORKER)
class CaptionPerImage(ModelWorker):
    """Answers by a list, with a caption for each image."""

    worker_type = "caption"

    def result(self, job_input: dict[str, Any]) -> dict[str, Any]:
        return {"response": [super().result(job_input)["response"]] * len(job_input["images"])}


@mutant("detection-in-percent", kills=("ORB-WRK-21",), role=Role.WORKER)
class DetectionInPercent(ModelWorker):
    """Its scores go up to 100."""

    worker_type = "object_detection"

    def result(self, job_input: dict[str, Any]) -> dict[str, Any]:
        found = super().result(job_input)["detections"]
        return {"detections": [{**detection, "score": 100 * detection["score"]} for detection in found]}


@mutant("segmentation-without-labels", kills=("ORB-WRK-22",), role=Role.WORKER)
class SegmentationWithoutLabels(ModelWorker):
    """Has a label only for those masks that were prompted for."""

    worker_type = "segmentation"

    def result(self, job_input: dict[str, Any]) -> dict[str, Any]:
        return {**super().result(job_input), "labels": job_input.get("prompts", [])}


@mutant("video-one-count", kills=("ORB-WRK-23",), role=Role.WORKER)
class VideoOneCount(ModelWorker):
    """Counts the frames of all sessions together."""

    worker_type = "video_segmentation"

    def segment_video(self, job_input: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        entry = super().segment_video({**job_input, "cross_job_id": "all"}, output)
        return {**entry, "cross_job_id": job_input["cross_job_id"]}


@mutant("video-never-resets", kills=("ORB-WRK-23",), role=Role.WORKER)
class VideoNeverResets(ModelWorker):
    """Does not know reset_session."""

    worker_type = "video_segmentation"

    def segment_video(self, job_input: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        return super().segment_video({**job_input, "reset_session": False}, output)


@mutant("motion-remembers-all", kills=("ORB-WRK-24",), role=Role.WORKER)
class MotionRemembersAll(ModelWorker):
    """Never forgets a stream."""

    worker_type = "motion_energy"
    most_streams = 1_000_000


@mutant("motion-forgets-used", kills=("ORB-WRK-24",), role=Role.WORKER)
class MotionForgetsUsed(ModelWorker):
    """Forgets the stream that it has known for longest, though it may be in use."""

    worker_type = "motion_energy"

    def motion_energy(self, job_input: dict[str, Any], content: list[bytes]) -> dict[str, Any]:
        known = list(self.frames)
        entry = super().motion_energy(job_input, content)
        for media_id in [*known, *(name for name in self.frames if name not in known)]:
            if media_id in self.frames:
                self.frames.move_to_end(media_id)
        return entry


@mutant("motion-in-levels", kills=("ORB-WRK-24",), role=Role.WORKER)
class MotionInLevels(ModelWorker):
    """Its energy is in grey levels, up to 255."""

    worker_type = "motion_energy"

    def motion_energy(self, job_input: dict[str, Any], content: list[bytes]) -> dict[str, Any]:
        return {"motion_energy": 255 * super().motion_energy(job_input, content)["motion_energy"]}
