"""Transport: the handshake, frames and closes below the messages, and bytes that are none of these."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from orbtrio.conformance.cases import doorstep, frames
from orbtrio.conformance.cases.registration import unregistered_worker
from orbtrio.conformance.model import case
from orbtrio.conformance.notation import encode
from orbtrio.conformance.peer import Peer
from orbtrio.conformance.world import PipeEnded, PipeStuck

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan

__all__: list[str] = []

# Seconds: of the rulings B-01 (a handshake) and P-01 (a registration).
_HANDSHAKE_LIMIT: Final = 5.0
_REGISTRATION_LIMIT: Final = 10.0
_GRACE: Final = 1.5


@case(
    "ORB-HSK-01",
    "The WebSocket is at /ws, where workers look for it; elsewhere is none",
    sentences=("S0.2", "S1.12", "S8.9", "S8.10", "S8.13", "B-07"),
    readings={
        "404": "another path is answered with HTTP 404",
        "refused": "another path is refused, but not with HTTP 404",
        "accepted": "a WebSocket is accepted on another path, too",
    },
    plans=st.fixed_dictionaries(
        {
            "path": st.sampled_from(["/", "/w", "/wss", "/ws/ws", "/WS", "/api/ws", "/ws%20", "//ws"])
            | st.text("abcxyz0189-_.~", min_size=3, max_size=12).map("/".__add__)
        }
    ),
    examples=[{"path": "/"}],
)
def websocket_at_its_path(stage: EngineStage, plan: Plan) -> str:
    """A WebSocket at the path /ws must be accepted, and jobs go through it: every worker that was written
    from the spec connects there. Then another path is tried: the spec names one only, so a mistyped address
    should be told as such (HTTP 404) instead of looking like a worker that gets no jobs. A launched engine
    is given its address by SERVER_HOST and SERVER_PORT, so that this case fails without them.
    """
    stage.barrier()
    peer = Peer(stage.pipe(), stage.log, "peer at another path")
    stage.peers.append(peer)
    peer.ask(plan["path"])
    stage.expect(
        lambda: peer.open or peer.closed is not None,
        f"the handshake at {plan['path']} is answered or refused",
    )
    if peer.open:
        return "accepted"
    return "404" if peer.refusal == 404 else "refused"


@case(
    "ORB-HSK-02",
    "Messages are binary: what text frames say is not done, and does no harm",
    sentences=("S0.3", "P-50", "B-14"),
    readings={
        "1003": "a text frame closes its connection with 1003, unsupported data",
        "1008": "a text frame closes its connection with 1008",
        "closed otherwise": "a text frame ends its connection, without a close frame or with another code",
        "ignored": "text frames are ignored",
    },
    plans=st.fixed_dictionaries(
        {"as": st.sampled_from(["stranger", "client", "worker"]), "text": st.text(max_size=8)}
    ),
    examples=[{"as": role, "text": "{}"} for role in ("stranger", "client", "worker")],
)
def text_frames_say_nothing(stage: EngineStage, plan: Plan) -> str:
    """A peer sends, as a text frame in JSON, what would be right as a binary one in CBOR: a registration, a
    request, or a worker's output; and some other text. The protocol is binary: the engine may close the
    connection or ignore the frame, but must not do what it says, and must live. Otherwise a peer that mixes
    up its encodings seems to work until its first picture.
    """
    role = plan["as"]
    worker = stage.worker(stage.other_type(), size=1, latency_ms=30)
    client = stage.client()
    held = client.submit(worker_type=stage.other_type())
    stage.expect(lambda: bool(held.deliveries), f"{held} is delivered to {worker.name}")
    if role == "worker":
        speaker: Peer = worker
        said: dict[str, Any] = {
            "type": "worker_output",
            "output": [{"id": held.deliveries[0].id, "by": "text"}],
        }
        done, what = (lambda: bool(held.responses)), f"{held} is answered"
    elif role == "client":
        speaker, job = stage.client(), client.job(worker_type=stage.other_type())
        said = {"type": "worker_request", "jobs": [job.wire()]}
        done, what = (lambda: bool(job.deliveries)), f"{job} is delivered"
    else:
        speaker = stage.peer("stranger")
        said = stage.registration(stage.main_type, size=1, latency_ms=1)
        client.submit()
        done, what = (lambda: bool(speaker.messages)), "the stranger is sent jobs as a worker"
    speaker.send_text(json.dumps(said))
    speaker.send_text(plan["text"])
    stage.never(done, f"nothing that a text frame says is done by {speaker.name}'s connection", what)
    if speaker.closed is None:
        return "ignored"
    return str(speaker.closed.code) if speaker.closed.code in (1003, 1008) else "closed otherwise"


_BAD_ENDS: Final = {"unknown type": 1008, "missing resource": 1009}


@case(
    "ORB-HSK-03",
    "Connections are closed with a close frame that says why: 1000, 1008 or 1009",
    sentences=("S7.7", "S7.8", "S0.2", "S7.9", "S4.23", "S1.11"),
    readings={
        "right codes": "the connection is closed with the code that the spec has for that",
        "another code": "a message that is no CBOR closes the connection with another code than 1008",
        "no close frame": "a message that is no CBOR ends the connection without a close frame",
        "kept": "the connection is kept",
    },
    plans=st.one_of(
        st.fixed_dictionaries({"why": st.sampled_from(["undecodable", *_BAD_ENDS])}),
        st.fixed_dictionaries(
            {"why": st.just("good-bye"), "code": st.sampled_from([1000, 1001, 3000, 4999])}
        ),
    ),
    examples=[
        {"why": "undecodable"},
        {"why": "unknown type"},
        {"why": "missing resource"},
        {"why": "good-bye", "code": 1000},
    ],
)
def closes_say_why(stage: EngineStage, plan: Plan) -> str:
    """Four reasons to end a connection: a peer says good-bye (its close frame must be answered by one), a
    worker of an unknown type (1008), a job that refers to a missing resource (1009), and a message that is
    no CBOR (1008 is what the listed codes leave). Workers decide by the code whether it is worth connecting
    again; without a close frame each refusal looks like a broken network. Whether the engine closes at all
    is judged by REG-05 and RES-05.
    """
    why = plan["why"]
    peer: Peer = stage.peer("peer") if why == "unknown type" else stage.client()
    if why == "good-bye":
        peer.close(plan["code"])
        closed = stage.expect_closed(peer, "a close frame is answered by a close frame")
        stage.demand(closed.how == "close frame", "a close frame is answered by a close frame", str(closed))
        return "right codes"
    if why == "undecodable":
        peer.send(b"\x1c")
        stage.barrier()
        if not stage.wait(lambda: peer.closed is not None, 0.5):
            return "kept"
        assert peer.closed is not None
        if peer.closed.code is None:
            return "no close frame"
        return "right codes" if peer.closed.code == 1008 else "another code"
    if why == "unknown type":
        if stage.conditions.unknown_type is None:
            stage.skip("the target recognises every worker type")
        peer.send(stage.registration(stage.conditions.unknown_type))
    else:
        reference = {"__type": "resource-ref", "id": "nowhere"}
        job = {"job_id": "j", "worker_type": stage.main_type, "input": {"filepath": reference}}
        peer.send({"type": "worker_request", "resources": [], "jobs": [job]})
    stage.barrier()
    if not stage.wait(lambda: peer.closed is not None, 0.5):
        return "kept"
    stage.demand(
        peer.closed is not None and peer.closed.code == _BAD_ENDS[why],
        f"a peer with a {why} is closed with {_BAD_ENDS[why]}",
        str(peer.closed),
    )
    return "right codes"


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted(place * len(data) // 1000 for place in places)
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


@case(
    "ORB-HSK-04",
    "A message may come in any number of fragments, with pings between them",
    sentences=("S0.2",),
    plans=st.fixed_dictionaries(
        {"cuts": st.lists(st.integers(0, 1000), min_size=1, max_size=6), "ping": st.booleans()}
    ),
    examples=[{"cuts": [500], "ping": False}, {"cuts": [0, 1, 500, 1000], "ping": True}],
)
def messages_in_fragments(stage: EngineStage, plan: Plan) -> None:
    """A worker's registration, a client's request and the worker's output are each sent as one message of
    several WebSocket fragments, empty ones included, with pings in between. RFC 6455 lets any library and
    any proxy do that. The job must be done as if the messages had come whole.
    """

    def send(peer: Peer, message: Any) -> None:
        parts = _cut(encode(message), plan["cuts"])
        for number, part in enumerate(parts):
            if plan["ping"] and number:
                peer.ping(b"between")
            opcode = frames.CONTINUATION if number else frames.BINARY
            frame = frames.frame(opcode, part, final=number == len(parts) - 1)
            peer.send_raw(frame, f"fragment {number + 1} of {len(parts)}")

    worker = unregistered_worker(stage)
    send(worker, stage.registration(stage.main_type, size=1, latency_ms=1))
    stage.barrier()
    client = stage.client()
    job = client.job()
    send(client, {"type": "worker_request", "jobs": [job.wire()]})
    stage.expect(
        lambda: bool(job.deliveries),
        f"{job}, requested in fragments, is delivered to {worker.name}, registered in fragments",
        lambda: _ends(worker, client),
    )
    send(worker, {"type": "worker_output", "output": [{"id": job.deliveries[0].id, "echo": 1}]})
    stage.expect(
        lambda: bool(client.responses),
        f"{job}, answered in fragments, is answered",
        lambda: _ends(worker, client),
    )


def _ends(*peers: Peer) -> str:
    return "; ".join(f"{peer.name} {peer.closed}" for peer in peers if peer.closed) or "nothing"


@case(
    "ORB-HSK-05",
    "Pings are answered at once, with their payload, however busy the peers are",
    sentences=("S9.8", "S0.2"),
    plans=st.fixed_dictionaries(
        {
            "as": st.sampled_from(["worker", "client"]),
            "payloads": st.lists(st.integers(0, 125), min_size=1, max_size=4),
            "jobs": st.integers(1, 20),
            "size": st.integers(1, 8),
        }
    ),
    examples=[
        {"as": "worker", "payloads": [4], "jobs": 1, "size": 1},
        {"as": "client", "payloads": [0, 125], "jobs": 3, "size": 2},
    ],
)
def pings_are_answered(stage: EngineStage, plan: Plan) -> None:
    """A worker with unanswered jobs in hand, or a client that waits for answers, pings the engine. A pong
    with the payload of the last ping must come at once (RFC 6455 lets earlier ones be left out). Common
    libraries ping every 20 seconds and hang up without a pong, so that a worker would lose its connection in
    the middle of a long job.
    """
    worker = stage.worker(size=plan["size"], latency_ms=1)
    client = stage.client()
    jobs = [client.submit() for _ in range(plan["jobs"])]
    stage.expect(lambda: bool(worker.deliveries), f"{worker.name} is sent some of {len(jobs)} jobs")
    peer: Peer = worker if plan["as"] == "worker" else client
    payloads = [bytes([65 + number]) * length for number, length in enumerate(plan["payloads"])]
    for payload in payloads:
        peer.ping(payload)
    stage.expect(
        lambda: payloads[-1] in peer.pongs,
        f"a ping of {peer.name} is answered by a pong with its payload of {len(payloads[-1])} bytes, while "
        f"{len(worker.deliveries)} jobs are in hand",
        lambda: f"{len(peer.pongs)} other pongs; {_ends(peer)}" if peer.pongs else _ends(peer),
        within=1.0,
    )


@case(
    "ORB-HSK-06",
    "A web page cannot connect: a handshake with an Origin is refused with 403",
    sentences=("B-09",),
    readings={
        "403": "a handshake with an Origin that nobody allowed is answered with HTTP 403",
        "refused": "a handshake with an Origin that nobody allowed is refused, but not with HTTP 403",
        "accepted": "a handshake with the Origin of any web page is accepted",
    },
    plans=st.fixed_dictionaries(
        {
            "origin": st.sampled_from(["null", "http://evil.example", "https://evil.example:8443", "file://"])
            | st.from_regex(r"https?://[a-z]{1,8}\.example(:[1-9][0-9]{1,3})?", fullmatch=True)
        }
    ),
    examples=[{"origin": "https://evil.example"}],
)
def web_pages_stay_out(stage: EngineStage, plan: Plan) -> str:
    """A handshake with an Origin header, which browsers send and programs do not. No rule of browsers keeps
    a web page from opening WebSockets to this machine, so an engine without a check serves every page that
    its owner looks at. A program, without that header, must get in all the same.
    """
    stage.barrier()
    peer = Peer(stage.pipe(), stage.log, "web page")
    stage.peers.append(peer)
    peer.ask(stage.conditions.path, headers=[("Origin", plan["origin"])])
    stage.expect(
        lambda: peer.open or peer.closed is not None,
        f"a handshake with Origin {plan['origin']} is answered or refused",
    )
    if peer.open:
        return "accepted"
    return "403" if peer.refusal == 403 else "refused"


@case(
    "ORB-HSK-07",
    "Bytes that are no WebSocket handshake harm nobody, however their connection ends",
    sentences=("S9.6", "S0.2", "P-7", "B-03", "B-04"),
    plans=st.fixed_dictionaries(
        {
            "strangers": st.lists(
                st.tuples(
                    st.sampled_from(sorted(doorstep.PIPE_JUNK)), st.sampled_from(["RST", "FIN", "stays"])
                ).map(list),
                min_size=1,
                max_size=6,
            ),
            "noise": st.integers(0, 2**32 - 1),
        }
    ),
    examples=[
        {"strangers": [[name, how] for name in sorted(doorstep.PIPE_JUNK)], "noise": 1}
        for how in ("RST", "FIN")
    ],
    seconds=2,
)
def junk_instead_of_a_handshake(stage: EngineStage, plan: Plan) -> None:
    """Strangers send what is no WebSocket handshake (plain HTTP, a TLS hello, noise, a non-ASCII Host,
    endless headers, nothing at all), and reset their connections at once, end them, or stay. After each, a
    job of a client that has been there all along must be done, and at the end a new peer must get in: the
    engine answers or hangs up, but must not end. Port scanners and health checks do all this every day.
    """
    stage.barrier()
    for name, how in plan["strangers"]:
        pipe = stage.pipe()
        what, data = doorstep.PIPE_JUNK[name], doorstep.pipe_junk(name, plan["noise"])
        stage.note(f"a stranger sends {len(data)} bytes, {what}, then {how}")
        # It may well hang up before it has got all of that.
        with contextlib.suppress(PipeEnded, PipeStuck):
            pipe.send(data)
        if how == "RST":
            pipe.reset()
        elif how == "FIN":
            pipe.close()
        stage.barrier()
    stage.peer("newcomer")


@case(
    "ORB-HSK-08",
    "Who does not finish the handshake within 5 s, or does not register within 10 s, is disconnected",
    sentences=("S0.2", "P-01", "B-01"),
    readings={
        "in time": "silent connections are ended within 5 s, unregistered WebSockets within 10 s",
        "late": "silent connections are ended, but only after more than 5 s",
        "kept": "a peer that says nothing, or nothing useful, is still connected after 10 s",
    },
    plans=st.fixed_dictionaries({"bytes": st.integers(1, 60), "again_ms": st.integers(300, 3000)}),
    examples=[{"bytes": 10, "again_ms": 700}],
)
def deadlines_for_strangers(stage: EngineStage, plan: Plan) -> str:
    """Four strangers connect: one says nothing, one sends a part of a handshake and no more, one sends a
    handshake byte by byte, and one opens a WebSocket and does not register. Whatever they hold (a
    descriptor, memory, a place under a limit) must come back, or a handful of forgotten or hostile programs
    can lock everybody out.
    """
    stage.need_patience(_REGISTRATION_LIMIT + 1, "waiting for the deadlines of handshake and registration")
    stage.barrier()
    request = doorstep.handshake(stage.conditions.path)
    start = stage.now()
    _, partial, slow = pipes = [stage.pipe() for _ in range(3)]
    unregistered = stage.peer("unregistered")
    partial.send(request[: plan["bytes"]])
    ended: dict[int, float] = {}

    def look() -> bool:
        for number, pipe in enumerate(pipes):
            if pipe.ended and number not in ended:
                ended[number] = stage.now() - start
        return len(ended) == len(pipes) and unregistered.closed is not None

    for byte in request[:-1]:
        if stage.now() - start > _REGISTRATION_LIMIT or look():
            break
        with contextlib.suppress(PipeEnded, PipeStuck):
            slow.send(bytes([byte]))
        if stage.world.wait(plan["again_ms"] / 1000, look):
            break
    left = _REGISTRATION_LIMIT - (stage.now() - start)
    if not stage.wait(look, max(left, 0.0) + _GRACE):
        stage.note(f"of four strangers {len(ended) + (unregistered.closed is not None)} were disconnected")
        return "kept"
    return "in time" if max(ended.values()) <= _HANDSHAKE_LIMIT + _GRACE + stage.slack else "late"
