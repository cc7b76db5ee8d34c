"""One short scene for each case: what is seen in it differs between the model and a mutant that it is for.

Not the cases themselves, which must hold against anybody's engine: a scene only shows that a fault can be
seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cbor2
import pytest
from wsproto.events import BytesMessage, CloseConnection, Ping

from orbtrio.conformance.model import Role, TargetGone
from orbtrio.conformance.simulation import SimulatedWorld
from orbtrio.conformance.zoo.engine import ModelEngine
from orbtrio.conformance.zoo.mutants import mutants
from tests.conformance.zoo.speaking import SECRET, Speaker, answer, client, ids, inputs, request, worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orbtrio.conformance.zoo.mutants import Mutant

    Scene = Callable[[SimulatedWorld], Any]

SCENES: Final[dict[str, Scene]] = {}

PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(100_000)


def scene(*case_ids: str) -> Callable[[Scene], Scene]:
    def keep(play: Scene) -> Scene:
        SCENES.update(dict.fromkeys(case_ids, play))
        return play

    return keep


def seen_in(look: str, engine: type[Any], root: Path) -> Any:
    """What one scene shows of one engine."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        return SCENES[look](SimulatedWorld(engine(root, secret=SECRET)))
    except TargetGone:
        return "gone"


def assert_shows(known: Mutant, root: Path) -> None:
    """Each case that has to notice a fault has a scene in which it differs from the model."""
    for case_id in known.kills:
        looks = [look for look in SCENES if look.startswith(case_id)]
        assert any(
            seen_in(look, known.faulty, root / "faulty") != seen_in(look, ModelEngine, root / "model")
            for look in looks
        ), f"{known.name} cannot be seen in {case_id}"


def of_module(name: str) -> list[Any]:
    """The faults of one module, as parameters of a test."""
    return [
        pytest.param(known, id=known.name)
        for known in mutants(Role.ENGINE).values()
        if known.faulty.__module__ == f"orbtrio.conformance.zoo.{name}"
    ]


def root_of(world: SimulatedWorld) -> Path:
    root: Path = world.target.root  # type: ignore[attr-defined]
    return root


def files(world: SimulatedWorld) -> int:
    return sum(path.is_file() for path in root_of(world).rglob("*"))


def after(world: SimulatedWorld, seconds: float, *speakers: Speaker) -> list[Any]:
    world.wait(seconds)
    return [(inputs(each), each.closed) for each in speakers]


def told(asker: Speaker) -> list[Any]:
    """Answers without the engine's ids."""
    said = []
    for message in asker.messages:
        output = {name: value for name, value in message["output"].items() if name != "id"}
        said.append((message["job_id"], output))
    return said


def image(name: str = "a", data: Any = PNG, kind: str = "image") -> dict[str, Any]:
    return {"id": name, "type": kind, "data": data}


def reference(name: str = "a") -> dict[str, str]:
    return {"__type": "resource-ref", "id": name}


def with_files(resources: list[Any], *references: Any, job_id: str = "j") -> dict[str, Any]:
    jobs = [
        {"job_id": f"{job_id}{n}", "worker_type": "llm", "input": {"n": n, "file": value}}
        for n, value in enumerate(references)
    ]
    return {"type": "worker_request", "resources": resources, "jobs": jobs}


def paths(speaker: Speaker) -> list[Any]:
    return [job["input"]["file"] for batch in speaker.messages for job in batch["inputs"]]


def alive(world: SimulatedWorld) -> Any:
    try:
        return Speaker(world).status
    except TargetGone:
        return "gone"


# --- HSK, REG ---


@scene("ORB-HSK-01")
def paths_of_the_handshake(world: SimulatedWorld) -> Any:
    return [Speaker(world, path).status for path in ("/ws", "/ws?x=1", "/", "/other")]


@scene("ORB-HSK-02")
def text(world: SimulatedWorld) -> Any:
    speaker = Speaker(world)
    speaker.say_text('{"type": "i_am_server"}')
    other = Speaker(world)
    other.say_text("nothing")
    return speaker.closed, other.closed, alive(world)


@scene("ORB-HSK-03", "ORB-SEC-03")
def undecodable(world: SimulatedWorld) -> Any:
    codes = []
    for junk in (
        b"\xff",
        b"\xa0\x00",
        b"\xa1\x01\x02",
        b"\xd8\x1c\xa0",
        b"",
        b"\xa2\x61a\x01\x61a\x02",
        b"\x80",
    ):
        speaker = Speaker(world)
        speaker.say_bytes(junk)
        codes.append(speaker.closed)
        if alive(world) == "gone":
            return "gone"
    leaving = client(world)
    leaving.push(leaving.socket.send(CloseConnection(1000)))
    return codes, leaving.closed


@scene("ORB-HSK-04")
def fragments(world: SimulatedWorld) -> Any:
    speaker = Speaker(world)
    message = cbor2.dumps({"type": "i_am_server"})
    pieces = ((message[:4], False), (b"", False), (message[4:], True))
    frames = [speaker.socket.send(BytesMessage(data=data, message_finished=last)) for data, last in pieces]
    for frame in frames:
        speaker.push(frame)
    return speaker.closed


@scene("ORB-HSK-05")
def pings(world: SimulatedWorld) -> Any:
    one, asker = worker(world), client(world)
    for _ in range(2):
        one.push(one.socket.send(Ping(payload=b"here")))
        asker.say(request(1))
    return one.pongs


@scene("ORB-HSK-06")
def origin(world: SimulatedWorld) -> Any:
    return Speaker(world, headers=[(b"Origin", b"https://a.page")]).status


@scene("ORB-HSK-07")
def junk(world: SimulatedWorld) -> Any:
    for bad in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\r\n\r\n"):
        pipe = world.connect()
        pipe.send(bad)
        pipe.reset()
    return alive(world)


@scene("ORB-HSK-08")
def silence(world: SimulatedWorld) -> Any:
    pipe = world.connect()
    world.wait(5.1)
    return pipe.ended


@scene("ORB-REG-01")
def registered(world: SimulatedWorld) -> Any:
    one = worker(world)
    return one.messages, one.closed


@scene("ORB-REG-02", "ORB-REG-03", "ORB-REG-13")
def secrets(world: SimulatedWorld) -> Any:
    return [worker(world, secret=secret).closed for secret in ("wrong", SECRET[:3], "", None)]  # type: ignore[arg-type]


@scene("ORB-REG-04", "ORB-REG-05")
def types(world: SimulatedWorld) -> Any:
    speaker = Speaker(world)
    speaker.say({"type": "i_am_worker", "worker_secret": SECRET, "worker_config": {}})
    return speaker.closed, worker(world, "unheard_of").closed


@scene("ORB-REG-06", "ORB-REG-07")
def numbers(world: SimulatedWorld) -> Any:
    return worker(world, max_batch_size=0).closed, worker(world, max_latency_ms=-1).closed


@scene("ORB-REG-08")
def defaults(world: SimulatedWorld) -> Any:
    one, asker = worker(world, max_batch_size=None, max_latency_ms=None), client(world)
    asker.say(request(*range(33)))
    return after(world, 20, one), after(world, 11, one)


@scene("ORB-REG-09", "ORB-REG-11")
def twice(world: SimulatedWorld) -> Any:
    one, two, three = worker(world), worker(world), client(world)
    config = {"worker_type": "llm"}
    registration = {"type": "i_am_worker", "worker_secret": SECRET, "worker_config": config}
    one.say(registration)
    two.say({"type": "i_am_server"})
    three.say(registration)
    return one.closed, two.closed, three.closed


@scene("ORB-REG-10")
def stranger(world: SimulatedWorld) -> Any:
    speaker = Speaker(world)
    speaker.say({"type": "worker_output", "output": []})
    return speaker.closed


@scene("ORB-REG-12")
def more_fields(world: SimulatedWorld) -> Any:
    speaker = Speaker(world)
    speaker.say(
        {"type": "i_am_worker", "worker_secret": SECRET, "worker_config": {"worker_type": "llm"}, "new": 1}
    )
    return speaker.closed


# --- BAT ---


@scene("ORB-BAT-01")
def steady(world: SimulatedWorld) -> Any:
    one, asker = worker(world, max_batch_size=10, max_latency_ms=1000), client(world)
    for number in range(4):
        asker.say(request(number))
        world.wait(0.4)
    return inputs(one)


@scene("ORB-BAT-02", "ORB-BAT-03", "ORB-BAT-04", "ORB-BAT-13")
def sizes(world: SimulatedWorld) -> Any:
    one, asker = worker(world, max_batch_size=2, max_latency_ms=1000), client(world)
    asker.say(request(*range(5)))
    return after(world, 0, one), after(world, 1.1, one)


@scene("ORB-BAT-05")
def empty(world: SimulatedWorld) -> Any:
    return after(world, 40, worker(world))


@scene("ORB-BAT-06", "ORB-BAT-08")
def shape(world: SimulatedWorld) -> Any:
    one, asker = worker(world), client(world)
    asker.say({"type": "worker_request", "jobs": [{"job_id": 1, "worker_type": "llm", "extra": 5}]})
    asker.say({"type": "worker_request", "jobs": [{"job_id": 2, "worker_type": "llm", "input": {"a": 1}}]})
    return [[{**job, "id": ""} for job in batch["inputs"]] for batch in one.messages]


@scene("ORB-BAT-07")
def unique(world: SimulatedWorld) -> Any:
    one = worker(world)
    for _ in range(2):
        client(world).say(request("same"))
    return len(set(ids(one)))


@scene("ORB-BAT-09", "ORB-SES-02")
def order(world: SimulatedWorld) -> Any:
    one, asker = worker(world, "motion_energy", max_batch_size=3), client(world)
    plain = worker(world, max_batch_size=3)
    jobs = [
        {"job_id": n, "worker_type": "motion_energy", "input": {"media_id": "m", "n": n}} for n in range(3)
    ]
    asker.say({"type": "worker_request", "jobs": jobs})
    asker.say(request(7, 8, 9))
    return inputs(one), inputs(plain)


@scene("ORB-BAT-10", "ORB-BAT-11")
def thousand(world: SimulatedWorld) -> Any:
    asker = client(world)
    asker.say(request(*range(1002)))
    one = worker(world, max_batch_size=2000)
    world.wait(1)
    return [(len(batch), batch[0], batch[-1]) for batch in inputs(one)]


@scene("ORB-BAT-12")
def weight(world: SimulatedWorld) -> Any:
    one, asker = worker(world, max_batch_size=2), client(world)
    jobs = [{"job_id": n, "worker_type": "llm", "input": {"n": n, "b": bytes(500_000)}} for n in range(2)]
    asker.say({"type": "worker_request", "jobs": jobs})
    return after(world, 1, one)


# --- OUT ---


@scene("ORB-OUT-01", "ORB-OUT-02", "ORB-OUT-03", "ORB-OUT-04", "ORB-OUT-08", "ORB-OUT-09")
def answers(world: SimulatedWorld) -> Any:
    one, asker = worker(world, max_batch_size=3), client(world)
    asker.say(request(1, 2, 3))
    first, second, third = ids(one)
    one.say({"type": "worker_output", "output": [{"id": second, "r": 2}]})
    one.say({"type": "worker_output", "output": [{"id": third, "r": 3}, {"id": first, "r": 1}]})
    answer(one, first, r="again")
    asker.say(request(1))
    return told(asker), after(world, 1, one)


@scene("ORB-OUT-05", "ORB-OUT-06", "ORB-OUT-07", "ORB-OUT-10", "ORB-OUT-11")
def odd_answers(world: SimulatedWorld) -> Any:
    one, two, asker = worker(world), worker(world), client(world)
    asker.say(request(1, 2, 3, 4, 5))
    answer(two, ids(one)[0], r="foreign")
    answer(one, ids(one)[0], error="an error")
    one.say({"type": "worker_output", "output": [None, {"id": ids(one)[1], "none": None, "bytes": b"x"}]})
    answer(one, ids(one)[2], error=None, more=b"x", none=None)
    answer(two, "unheard of")
    return told(asker), after(world, 1, one, two)


@scene("ORB-OUT-12", "ORB-TMO-02", "ORB-TMO-04", "ORB-TMO-01")
def late(world: SimulatedWorld) -> Any:
    one, asker, other = worker(world, max_unanswered_batches=1), client(world), client(world, "engine_errors")
    asker.say(request("a"))
    other.say(request("b"))
    world.wait(200)
    before = told(asker), told(other), inputs(one)
    world.wait(101)
    answer(one, *ids(one), r="late")
    world.wait(1)
    return before, told(asker), told(other), after(world, 300, one)


@scene("ORB-TMO-01 queued")
def queued_time_counts(world: SimulatedWorld) -> Any:
    asker = client(world, "engine_errors")
    asker.say(request("a"))
    world.wait(200)
    one = worker(world)
    world.wait(101)
    return told(asker), inputs(one)


# --- RES, SEC ---


@scene("ORB-RES-01", "ORB-RES-02", "ORB-RES-15", "ORB-RES-17", "ORB-RES-14")
def readable(world: SimulatedWorld) -> Any:
    one, asker = worker(world), client(world)
    resources = [image("p"), image("d", "äöü €", "document")]
    asker.say(with_files(resources, reference("p"), reference("d"), [{"deep": reference("p")}]))
    png, document, deep = paths(one)
    seen = []
    for path in (png, document):
        file = root_of(world) / path
        seen.append((path.startswith("/"), file.read_bytes(), file.suffix))
    return seen, type(deep[0]["deep"])


@scene("ORB-RES-03", "ORB-RES-04", "ORB-RES-05", "ORB-RES-06", "ORB-RES-16", "ORB-RES-11", "ORB-RES-12")
def requests_with_files(world: SimulatedWorld) -> Any:
    one, seen = worker(world), []
    for message in (
        with_files([image(data=bytes(2_000_000))], reference()),
        with_files([image(data=bytes(2_097_153))], reference()),
        with_files([image()], reference(), reference("missing")),
        with_files([image(), image("unused")], reference()),
        with_files([image(data=cbor2.CBORTag(64, PNG))], reference()),
        with_files([image(), image("twin")], reference(), reference("twin")),
    ):
        asker = client(world)
        asker.say(message)
        seen.append((asker.closed, files(world)))
    asker = client(world)
    for number in range(2):
        asker.say(with_files([image(data=b"%d" % number)], reference(), job_id=str(number)))
    contents = [(root_of(world) / path).read_bytes()[:1] for path in paths(one) if type(path) is str]
    return seen, len(one.messages), contents


@scene("ORB-RES-07", "ORB-RES-08")
def until_the_last_job(world: SimulatedWorld) -> Any:
    one, asker = worker(world), client(world)
    asker.say(with_files([image()], reference(), reference()))
    seen = [files(world)]
    for job_id in ids(one):
        answer(one, job_id)
        seen.append(files(world))
    return seen


@scene("ORB-RES-09", "ORB-TMO-03")
def files_of_the_timed_out(world: SimulatedWorld) -> Any:
    asker = client(world)
    asker.say(with_files([image()], reference()))
    before = files(world)
    world.wait(301)
    return before, files(world)


@scene("ORB-RES-10", "ORB-REC-05")
def files_of_the_gone(world: SimulatedWorld) -> Any:
    one, asker = worker(world, max_unanswered_batches=1), client(world)
    asker.say(with_files([image()], reference(), reference()))
    asker.pipe.reset()
    answer(one, *ids(one))
    return files(world), len(one.messages)


@scene("ORB-RES-13")
def traversal(world: SimulatedWorld) -> Any:
    one, asker = worker(world), client(world)
    asker.say(with_files([image("../../x")], reference("../../x")))
    return ".." in paths(one)[0]


@scene("ORB-SEC-02")
def anothers_file(world: SimulatedWorld) -> Any:
    one, asker, thief = worker(world), client(world), client(world)
    asker.say(with_files([image()], reference()))
    thief.say(with_files([], reference()))
    return thief.closed, len(one.messages)


@scene("ORB-SEC-01")
def anothers_answer(world: SimulatedWorld) -> Any:
    one, asker, other = worker(world), client(world), client(world)
    asker.say(request(1))
    answer(one, *ids(one))
    return told(asker), told(other)


@scene("ORB-SEC-04", "ORB-MUL-03")
def stuck(world: SimulatedWorld) -> Any:
    one, two, asker = worker(world), worker(world), client(world)
    one.pipe.paused = True
    asker.say(request(*range(84)))
    return after(world, 1, two)


@scene("ORB-SEC-05")
def idle(world: SimulatedWorld) -> Any:
    pipes = [world.connect() for _ in range(150)]
    return sum(not pipe.ended for pipe in pipes), alive(world)


# --- REC, MUL, SES ---


@scene("ORB-REC-01", "ORB-REC-02")
def moved(world: SimulatedWorld) -> Any:
    one, asker = worker(world, max_batch_size=2, max_latency_ms=5000), client(world)
    asker.say(request(1, 2, 3))
    two = worker(world, max_batch_size=9)
    one.pipe.reset()
    return after(world, 1, two)


@scene("ORB-REC-03")
def successor(world: SimulatedWorld) -> Any:
    one, asker = worker(world), client(world)
    asker.say(request(1))
    one.pipe.reset()
    return after(world, 1, worker(world))


@scene("ORB-REC-04")
def slow(world: SimulatedWorld) -> Any:
    one, two, asker = worker(world), worker(world), client(world)
    asker.say(request(1))
    return after(world, 30, one, two)


@scene("ORB-REC-06")
def flap(world: SimulatedWorld) -> Any:
    asker, seen = client(world), []
    asker.say(request(1))
    for _ in range(5):
        one = worker(world)
        seen += after(world, 1, one)
        one.pipe.reset()
    return seen


@scene("ORB-MUL-01", "ORB-MUL-02")
def shares(world: SimulatedWorld) -> Any:
    one, two, asker = worker(world), worker(world), client(world)
    asker.say(request(1, 2, 3, 4))
    asker.say(request(5, worker_type="vlm"))
    return after(world, 1, one, two)


@scene("ORB-SES-01")
def session(world: SimulatedWorld) -> Any:
    workers, asker = [worker(world, "motion_energy") for _ in range(2)], client(world)
    for number in range(4):
        job = {"job_id": number, "worker_type": "motion_energy", "input": {"media_id": "m", "n": number}}
        asker.say({"type": "worker_request", "jobs": [job]})
    return [inputs(each) for each in workers]
