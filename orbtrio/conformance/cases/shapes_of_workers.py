"""WRK: answers in the shape that the page prints for the worker's type; a case for each documented type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.examples import PICTURE
from orbtrio.conformance.model import Plan, Role, case
from orbtrio.conformance.notation import diagnostic
from orbtrio.conformance.shapes import check_output
from orbtrio.conformance.worker_bench import OTHER_PICTURE

if TYPE_CHECKING:
    from orbtrio.conformance.worker_bench import WorkJob
    from orbtrio.conformance.worker_stage import WorkerStage

__all__: list[str] = []

# "Uses LRU cache with max 100 concurrent streams".
_STREAMS: Final = 100

_NUMBERS: Final = st.lists(st.integers(0, 3), min_size=1, max_size=6)
_PLANS: Final = st.fixed_dictionaries({"inputs": _NUMBERS})
_EXAMPLES: Final = ({"inputs": [0]}, {"inputs": [0, 1, 2, 3]})


def _only(stage: WorkerStage, worker_type: str) -> None:
    if stage.bench.worker_type is None:
        stage.link()
    if stage.bench.worker_type != worker_type:
        stage.skip(f"the worker under test is no {worker_type} worker")


def _ask(stage: WorkerStage, *inputs: dict[str, Any]) -> list[WorkJob]:
    """Send jobs in batches that the worker takes, and demand that their answers have the right shape."""
    worker_type = str(stage.bench.worker_type)
    jobs = [stage.job(input=job_input) for job_input in inputs]
    size = stage.link().max_batch_size
    for start in range(0, len(jobs), size):
        batch = jobs[start : start + size]
        stage.deliver(*batch)
        stage.expect_answers(batch, f"each of {len(batch)} {worker_type} jobs is answered")
    for job in jobs:
        entry = job.answers[0].entry
        complaints = check_output(worker_type, entry)
        stage.demand(
            not complaints,
            f"the answer to job {job.id} has the shape of a {worker_type} output",
            f"{'; '.join(complaints)} in {diagnostic(entry)}",
        )
    return jobs


def _result(stage: WorkerStage, job: WorkJob) -> dict[str, Any]:
    answer = job.answers[0]
    stage.demand(
        not answer.failed, f"job {job.id} gets a result: {diagnostic(job.entry)}", diagnostic(answer.entry)
    )
    return answer.entry


def _shapes(stage: WorkerStage, plan: Plan, worker_type: str) -> list[WorkJob]:
    _only(stage, worker_type)
    ways = [stage.bench.inputs(stage.picture()) for _ in plan["inputs"]]
    inputs = [way[number % len(way)] for way, number in zip(ways, plan["inputs"], strict=True)]
    jobs = _ask(stage, *inputs)
    for number, job in zip(plan["inputs"], jobs, strict=True):
        # The first way is what any worker of the type can do; others it may refuse, by an error.
        if number % len(ways[0]) == 0:
            _result(stage, job)
    return jobs


@case(
    "ORB-WRK-17",
    "An embedding worker answers by vectors",
    role=Role.WORKER,
    sentences=("S5.1", "S5.2", "S5.3", "S5.4", "S5.5", "S5.6", "S5.7", "S5.8", "S3.9"),
    plans=_PLANS,
    examples=_EXAMPLES,
)
def embedding(stage: WorkerStage, plan: Plan) -> None:
    """Texts with a prompt_name and without, and pictures by their paths, are sent. Each is answered by
    `embedding`, numbers, and `shape`, how many they are, if that is there; or by an error. All vectors must
    have equally many numbers: whoever compares them could not, otherwise."""
    jobs = _shapes(stage, plan, "embedding")
    results = [job.answers[0].entry for job in jobs if not job.answers[0].failed]
    lengths = {len(entry["embedding"]) for entry in results}
    stage.demand(len(lengths) <= 1, "all embeddings have equally many numbers", f"{sorted(lengths)}")


@case(
    "ORB-WRK-18",
    "An LLM worker answers by a text",
    role=Role.WORKER,
    sentences=("S5.9", "S5.10", "S5.11", "S5.12", "S5.13", "S3.9"),
    plans=_PLANS,
    examples=_EXAMPLES,
)
def llm(stage: WorkerStage, plan: Plan) -> None:
    """Conversations of one message and of several are sent. Each is answered by `response`, a text, or by an
    error; one user's message must be answered by a response."""
    _shapes(stage, plan, "llm")


@case(
    "ORB-WRK-19",
    "A vision language worker answers by a text",
    role=Role.WORKER,
    sentences=("S5.14", "S5.15", "S5.16", "S5.17", "S3.9"),
    plans=_PLANS,
    examples=_EXAMPLES,
)
def vlm(stage: WorkerStage, plan: Plan) -> None:
    """Messages of texts and pictures are sent. Each is answered by `response`, a text, or by an error; a
    question about one picture must be answered by a response."""
    _shapes(stage, plan, "vlm")


@case(
    "ORB-WRK-20",
    "A captioning worker answers by a text",
    role=Role.WORKER,
    sentences=("S5.18", "S5.19", "S5.20", "S5.21", "S3.9"),
    plans=_PLANS,
    examples=_EXAMPLES,
)
def caption(stage: WorkerStage, plan: Plan) -> None:
    """Lists of pictures are sent, with a query and without. Each is answered by `response`, a text, or by an
    error; one picture must be answered by a response."""
    _shapes(stage, plan, "caption")


@case(
    "ORB-WRK-21",
    "An object detection worker answers by labels, scores and boxes",
    role=Role.WORKER,
    sentences=(
        "S5.22", "S5.23", "S5.24", "S5.25", "S5.26", "S5.27", "S5.28", "S5.29", "S5.30", "S5.31", "S3.9",
    ),
    plans=_PLANS,
    examples=_EXAMPLES,
)  # fmt: skip
def object_detection(stage: WorkerStage, plan: Plan) -> None:
    """Pictures are sent. Each is answered by `detections`, also if there are none, each with a label, a score
    from 0 to 1 and a box whose left is not right of its right."""
    _shapes(stage, plan, "object_detection")


@case(
    "ORB-WRK-22",
    "A segmentation worker answers by masks, labels and boxes",
    role=Role.WORKER,
    sentences=("S5.32", "S5.33", "S5.34", "S5.35", "S5.36", "S5.37", "S5.38", "S5.39", "S3.9"),
    plans=_PLANS,
    examples=_EXAMPLES,
)
def segmentation(stage: WorkerStage, plan: Plan) -> None:
    """Pictures are sent, with prompts and without. Each is answered by `masks` with their sizes, and by as
    many labels and boxes where these are given."""
    _shapes(stage, plan, "segmentation")


@case(
    "ORB-WRK-23",
    "A video segmentation worker keeps sessions apart and counts their frames",
    role=Role.WORKER,
    sentences=(
        "S5.40", "S5.41", "S5.42", "S5.43", "S5.44", "S5.45", "S5.46", "S5.47", "S5.48", "S5.49", "S5.50",
        "S5.51", "S5.52", "S5.53", "S5.54", "S5.58", "S5.55", "S5.59", "S5.57", "S3.9",
    ),
    plans=st.fixed_dictionaries({"sessions": st.lists(st.integers(0, 1), min_size=2, max_size=6)}),
    examples=[{"sessions": [0, 0, 1, 0, 1]}],
)  # fmt: skip
def video_segmentation(stage: WorkerStage, plan: Plan) -> None:
    """Frames of two sessions are sent, one after the other. Each answer must name its session and have
    parallel lists; `frame_count` must grow by one with each frame of a session, whatever comes in the other,
    and begin anew with `reset_session`. The error for a file that is not there names the session, too."""
    _only(stage, "video_segmentation")
    mark = stage.job().id
    first, counts = 0, dict[int, int]()
    for which in [*plan["sessions"], *sorted(set(plan["sessions"]))]:
        session = f"session {which} of {mark}"
        frame = {"cross_job_id": session, "current_frame": stage.picture(), "prompts": ["square"]}
        (job,) = _ask(stage, frame)
        entry = _result(stage, job)
        count = int(entry["frame_count"])
        stage.demand(
            entry["cross_job_id"] == session,
            f"the answer to job {job.id} names {session}",
            diagnostic(entry["cross_job_id"]),
        )
        if which in counts:
            stage.demand(
                count == counts[which] + 1,
                f"frame_count of {session} grows by one, to {counts[which] + 1}",
                str(count),
            )
        elif not counts:
            first = count
        counts[which] = count
    session = f"session {plan['sessions'][0]} of {mark}"
    frame = {"cross_job_id": session, "current_frame": stage.picture(), "prompts": ["square"]}
    (job,) = _ask(stage, {**frame, "reset_session": True})
    count = int(_result(stage, job)["frame_count"])
    stage.demand(
        count == first, f"frame_count of {session} begins anew, with {first}, after reset_session", str(count)
    )
    (job,) = _ask(stage, {**frame, "current_frame": stage.picture() + ".not-there"})
    stage.demand(job.answers[0].failed, f"job {job.id}, whose frame is not there, gets an error", "a result")


@case(
    "ORB-WRK-24",
    "A motion energy worker compares the frames of a stream, of 100 streams at most",
    role=Role.WORKER,
    sentences=("S5.60", "S5.61", "S5.62", "S5.63", "S5.64", "S5.65", "S5.66", "S5.67", "S5.68", "S3.9"),
    plans=st.fixed_dictionaries({"touch": st.booleans(), "more": st.integers(0, 5)}),
    examples=[{"touch": True, "more": 0}],
    seconds=2,
)
def motion_energy(stage: WorkerStage, plan: Plan) -> None:
    """A stream's second frame equals its first, another stream's differs: the energy of the latter must be
    the greater, and both from 0 to 1. Then 100 other streams come. The first stream must be forgotten, so
    that its next frame is answered as that of a new stream, while one that was used meanwhile is remembered:
    cameras come and go, and a worker that remembers them all runs out of memory."""
    _only(stage, "motion_energy")
    mark = stage.job().id

    def frame(stream: Any, content: bytes = PICTURE) -> dict[str, Any]:
        return {"media_id": f"camera {stream} of {mark}", "current_frame": stage.picture(content)}

    def energy(stream: Any, content: bytes = PICTURE) -> float:
        (job,) = _ask(stage, frame(stream, content))
        return float(_result(stage, job)["motion_energy"])

    new = energy("new", OTHER_PICTURE)
    energy("still")
    still = energy("still")
    energy("moving")
    moving = energy("moving", OTHER_PICTURE)
    stage.demand(
        moving > still,
        "a frame that differs from the last has a greater motion_energy than one that equals it",
        f"{moving} for another picture, {still} for the same",
    )
    energy("old")
    energy("kept")
    half = _STREAMS // 2
    _ask(stage, *(frame(number) for number in range(half)))
    if plan["touch"]:
        energy("kept")
    _ask(stage, *(frame(number) for number in range(half, _STREAMS + plan["more"])))
    if plan["touch"]:
        kept = energy("kept", OTHER_PICTURE)
        stage.demand(
            kept == moving,
            f"a stream used within the last {_STREAMS} is remembered: its frame is compared with its last",
            f"motion_energy {kept}, and {moving} for the same two frames before",
        )
    old = energy("old", OTHER_PICTURE)
    stage.demand(
        old == new,
        f"a stream is forgotten after {_STREAMS} others: its next frame is the first of a new stream",
        f"motion_energy {old}; of a new stream {new}, of one that is remembered {moving}",
    )
