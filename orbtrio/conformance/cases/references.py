"""Resources: which reference means which file, and what of a resource becomes part of its file's name."""

from __future__ import annotations

import base64
import os
import re
import string
from typing import TYPE_CHECKING, Any, Final

import cbor2
from hypothesis import strategies as st

from orbtrio.conformance.cases.resources import (
    LATENCY_MS,
    content,
    delivered,
    document,
    expect_content,
    field,
    file_of,
    image,
    need_files,
    reference,
    store_of,
)
from orbtrio.conformance.model import case
from orbtrio.conformance.notation import diagnostic

if TYPE_CHECKING:
    from orbtrio.conformance.engine_stage import EngineStage
    from orbtrio.conformance.model import Plan

__all__: list[str] = []


@case(
    "ORB-RES-11",
    "Jobs of a request that refer to the same resource share one file",
    sentences=("S4.1", "S4.2", "S4.11", "P-43"),
    plans=st.fixed_dictionaries({"jobs": st.integers(2, 5), "twins": st.integers(0, 2)}),
    readings={
        "by content": "identical bytes in one request are stored once, whatever their ids",
        "by id": "one resource is one file; identical resources with different ids are files of their own",
    },
    examples=[{"jobs": 2, "twins": 0}, {"jobs": 2, "twins": 1}],
)
def jobs_share_a_file(stage: EngineStage, plan: Plan) -> str:
    """Several jobs of one request refer to one resource, and others to resources with other ids but identical
    bytes. All jobs with the same reference must be told the same file. Whether identical bytes share a file,
    too, is told as a reading. A copy for each job costs the disk that references were made to spare.
    """
    need_files(stage)
    count = plan["jobs"] + plan["twins"]
    worker = stage.worker(size=count, latency_ms=LATENCY_MS)
    client = stage.client()
    jobs = [client.job({"file": reference("shared")}) for _ in range(plan["jobs"])]
    twins = [client.job({"file": reference(f"twin{number}")}) for number in range(plan["twins"])]
    data = content(jobs[0])
    names = ["shared", *(f"twin{number}" for number in range(plan["twins"]))]
    client.request(jobs + twins, [image(name, data) for name in names])
    deliveries = [delivered(stage, job) for job in jobs + twins]
    paths = [file_of(stage, delivery) for delivery in deliveries]
    for job, path in zip(jobs[1:], paths[1:], strict=False):
        stage.demand(
            path.samefile(paths[0]),
            f"{jobs[0]} and {job}, which refer to the same resource, are told the same file",
            f"{str(paths[0])!r} and {str(path)!r}",
        )
    shared = all(path.samefile(paths[0]) for path in paths)
    for delivery in deliveries:
        expect_content(stage, file_of(stage, delivery), data, str(delivery.job))
    worker.answer(*deliveries)
    return "by content" if shared else "by id"


@case(
    "ORB-RES-12",
    "The same resource id in two requests means two resources",
    sentences=("S4.7", "S4.9", "S4.17", "P-43"),
    plans=st.fixed_dictionaries({"requests": st.integers(2, 4), "clients": st.integers(1, 2)}),
    examples=[{"requests": 2, "clients": 1}, {"requests": 2, "clients": 2}],
)
def same_id_in_two_requests(stage: EngineStage, plan: Plan) -> None:
    """Requests of one client, or of two, use the same resource id for different bytes while all their jobs
    are open. Each job must find the bytes of its own request, and still find them when the first of the
    others has been answered. Clients number their frames from one; with files named by the id alone a worker
    describes somebody else's picture.
    """
    need_files(stage)
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    clients = [stage.client() for _ in range(plan["clients"])]
    jobs = []
    for number in range(plan["requests"]):
        client = clients[number % plan["clients"]]
        job = client.job({"file": reference("frame-1")})
        client.request([job], [image("frame-1", content(job))])
        jobs.append(job)
    deliveries = [delivered(stage, job) for job in jobs]
    for delivery in deliveries:
        expect_content(stage, file_of(stage, delivery), content(delivery.job), str(delivery.job))
    worker.answer(deliveries[0])
    stage.quiet()
    for delivery in deliveries[1:]:
        expect_content(stage, file_of(stage, delivery), content(delivery.job), str(delivery.job))
    worker.answer(*deliveries[1:])


_HOSTILE_IDS: Final = [
    *(
        "../../escaped",
        "../escaped",
        "/etc/escaped",
        "a/b/c",
        "..",
        ".",
        "",
        "..\\..\\escaped",
        "%2e%2e%2fescaped",
    ),
    *(
        "nul\0byte",
        "line\nbreak",
        "-rf",
        "CON",
        "~/escaped",
        "$HOME",
        "*",
        "über",
        "\u202egnp.exe",
        "x" * 4000,
    ),
]
_PLAIN: Final = re.compile(rf"[{string.ascii_letters}{string.digits}._-]{{1,64}}")


@case(
    "ORB-RES-13",
    "No resource id leads out of the directory of files",
    sentences=("S4.16", "S4.17", "P-42", "B-61"),
    plans=st.fixed_dictionaries(
        {
            "id": st.sampled_from(_HOSTILE_IDS)
            | st.lists(st.sampled_from(["..", "/", "\\", "a", ".", "\0"]), min_size=1, max_size=8).map(
                "".join
            )
        }
    ),
    readings={
        "replaced": "an id that is no plain name is not part of the file's name",
        "kept": "such an id is part of the file's name, within the directory",
        "refused": "a request with such an id has its connection closed",
    },
    examples=[{"id": "../../escaped"}, {"id": "x" * 4000}],
)
def ids_stay_inside(stage: EngineStage, plan: Plan) -> str:
    """A client names a resource "../../escaped", "/etc/escaped", with zero bytes, or with 4,000 characters.
    The file must lie in the directory where the same client's other files lie, with the right bytes;
    or the request is refused by closing its connection. Otherwise a client writes where it likes on the
    engine's machine.
    """
    need_files(stage)
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    client = stage.client()
    store = os.path.realpath(store_of(stage, client, client))
    job = client.job({"file": reference(plan["id"])})
    client.request([job], [image(plan["id"], content(job))])
    stage.expect(
        lambda: bool(job.deliveries) or client.closed is not None,
        f"the request with the resource id {plan['id'][:100]!r} is accepted, or refused by a close",
    )
    if client.closed is not None:
        return "refused"
    delivery = job.deliveries[-1]
    told = field(delivery, "file")
    where = os.path.realpath(told) if isinstance(told, str) and "\0" not in told else None
    stage.demand(
        where is not None and os.path.commonpath([store, where]) == store,
        f"the file of resource {plan['id'][:100]!r} lies below {store!r}, where its client's other files are",
        f"{diagnostic(told)}, which is {diagnostic(where)}",
    )
    path = file_of(stage, delivery)
    expect_content(stage, path, content(job), str(job))
    worker.answer(delivery)
    plain = _PLAIN.fullmatch(plan["id"]) or not plan["id"]
    return "kept" if not plain and plan["id"] in path.name else "replaced"


def _with(tree: Any, here: Any) -> Any:
    # A plan's tree with this in each place that the plan marks.
    if isinstance(tree, dict):
        return {name: _with(member, here) for name, member in tree.items()}
    if isinstance(tree, list):
        return [_with(member, here) for member in tree]
    return here if tree == _HERE else tree


_HERE: Final = "<reference>"
_TREES: Final = st.recursive(
    st.just(_HERE) | st.integers(0, 9) | st.none(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "id", "__type", "content"]), inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


@case(
    "ORB-RES-14",
    "References are replaced wherever they stand in an input",
    sentences=("S4.8", "S4.12", "S4.28", "S5.15", "S5.18", "P-40", "B-62"),
    plans=st.fixed_dictionaries({"tree": _TREES, "loose": st.booleans()}),
    readings={
        "exact": "only a map of exactly __type and id is a reference",
        "loose": "a map with further fields is taken for a reference, too",
    },
    examples=[
        {"tree": [{"role": "user", "content": [{"type": "image", "image": _HERE}]}], "loose": False},
        {"tree": {"images": [_HERE, _HERE]}, "loose": True},
    ],
)
def nested_references_are_replaced(stage: EngineStage, plan: Plan) -> str:
    """References stand in lists and maps, several levels deep, as in the messages of a vlm worker; some maps
    look nearly like one. Each reference must be replaced by the file's path and everything else stay as it
    is. Whether a map with a field besides ``__type`` and ``id`` is one, is told. A worker that finds a
    reference where it needs a path fails the job.
    """
    need_files(stage)
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    client = stage.client()
    near = {**reference("file"), "note": 1}
    # One that stands at the top, so that the resource is referred to in any case.
    job = client.job({"file": reference("file"), "tree": _with(plan["tree"], reference("file"))})
    if plan["loose"]:
        job.input["near"] = near
    client.request([job], [image("file", content(job))])
    delivery = delivered(stage, job)
    path = file_of(stage, delivery)
    expected = _with(plan["tree"], str(path))
    stage.demand(
        field(delivery, "tree") == expected,
        f"each reference in field 'tree' is replaced by the path: {diagnostic(expected)}",
        diagnostic(field(delivery, "tree")),
    )
    worker.answer(delivery)
    return "exact" if not plan["loose"] or field(delivery, "near") == near else "loose"


# The smallest there are, but complete: what a library is asked to recognise should not be a torso.
_CONTENTS: Final = {
    "png": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC",
    "gif": "R0lGODdhAQABAIEAAAAAAAAAAAAAAAAAACwAAAAAAQABAAAIBAABBAQAOw==",
    "webp": "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAUAmJaQAA3AA/v02aAA=",
    "jpg": "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP"
    + "/" * 86
    + "wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAA//EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AN//Z",
}
_SPELLINGS: Final = {"jpeg": "jpg", "jpe": "jpg"}


@case(
    "ORB-RES-15",
    "A resource's file has an extension, of its content or of its type",
    sentences=("S4.18", "P-42"),
    plans=st.fixed_dictionaries(
        {
            "kinds": st.lists(
                st.sampled_from(["png", "gif", "webp", "jpg", "document", "unknown"]),
                min_size=1,
                max_size=6,
                unique=True,
            )
        }
    ),
    readings={
        "by content": "a picture's file is called by what its bytes are: png, gif, webp, jpg",
        "by type": "a picture's file is called by the resource's type, whatever its bytes are",
    },
    examples=[{"kinds": ["png", "gif", "webp", "jpg", "document", "unknown"]}],
)
def files_have_extensions(stage: EngineStage, plan: Plan) -> str:
    """A client sends small but complete pictures of several formats, a document, and bytes of no known
    format. Each file's name must end in an extension. Whether that comes from the content or only from the
    resource's type is told: libraries that go by the name refuse a GIF that is called .png.
    """
    need_files(stage)
    worker = stage.worker(size=len(plan["kinds"]), latency_ms=LATENCY_MS)
    client = stage.client()
    jobs = [client.job({"file": reference(kind)}) for kind in plan["kinds"]]
    resources = {kind: image(kind, base64.b64decode(data)) for kind, data in _CONTENTS.items()}
    resources["document"] = document("document", "plain text")
    resources["unknown"] = image("unknown", b"\x01\x02\x03\x04 of no known format")
    client.request(jobs, [resources[kind] for kind in plan["kinds"]])
    deliveries = [delivered(stage, job) for job in jobs]
    reading = "by content"
    for kind, delivery in zip(plan["kinds"], deliveries, strict=True):
        path = file_of(stage, delivery)
        extension = path.suffix[1:].lower()
        stage.demand(
            bool(extension),
            f"the name of the {kind} file ends in an extension",
            f"{path.name!r}, which has none",
        )
        if kind in _CONTENTS and _SPELLINGS.get(extension, extension) != kind:
            reading = "by type"
    worker.answer(*deliveries)
    return reading


@case(
    "ORB-RES-16",
    "A JavaScript client's Uint8Array, tag 64, is bytes",
    sentences=("S4.4", "S0.3", "P-50"),
    plans=st.fixed_dictionaries({"size": st.integers(1, 2000)}),
    examples=[{"size": 1}, {"size": 70_000}],
)
def tagged_bytes_are_bytes(stage: EngineStage, plan: Plan) -> None:
    """A client sends a resource's data as a byte string with CBOR tag 64 (an array of uint8, RFC 8746), as
    the CBOR library of the public client encodes a Uint8Array. The worker must find a file with these bytes.
    An engine that knows untagged strings only refuses every picture of such a client.
    """
    need_files(stage)
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    client = stage.client()
    job = client.job({"file": reference("typed")})
    data = content(job, plan["size"])
    client.request([job], [image("typed", cbor2.CBORTag(64, data))])
    delivery = delivered(stage, job)
    expect_content(stage, file_of(stage, delivery), data, str(job))
    worker.answer(delivery)


@case(
    "ORB-RES-17",
    "A document's file is its text in UTF-8",
    sentences=("S4.5", "S4.6", "S4.18"),
    plans=st.fixed_dictionaries({"text": st.text(min_size=1, max_size=40), "times": st.integers(1, 300)}),
    examples=[{"text": "Grüße, 世界 🌍\r\n\ufeff\0", "times": 1}],
)
def documents_are_utf_8(stage: EngineStage, plan: Plan) -> None:
    """A client sends a document whose text has letters of many scripts, line ends of all kinds and zeros. The
    file must be that text in UTF-8, byte by byte: no other encoding, no byte order mark added, no line end
    changed. A worker reads it without being told an encoding.
    """
    need_files(stage)
    worker = stage.worker(size=1, latency_ms=LATENCY_MS)
    client = stage.client()
    text = plan["text"] * plan["times"]
    job = client.job({"file": reference("text")})
    client.request([job], [document("text", text)])
    delivery = delivered(stage, job)
    expect_content(stage, file_of(stage, delivery), text.encode(), str(job))
    worker.answer(delivery)
