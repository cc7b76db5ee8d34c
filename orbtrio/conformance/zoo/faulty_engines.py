"""Engines that are wrong about connections and registrations."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, Request, TextMessage

from orbtrio.conformance.simulation import Crashed
from orbtrio.conformance.zoo.dispatch import Client, Worker
from orbtrio.conformance.zoo.engine import DOCUMENTED_TYPES, ModelEngine, given
from orbtrio.conformance.zoo.mutants import mutant
from orbtrio.conformance.zoo.wire import Connection, Refused

__all__: list[str] = []


# --- HSK ----------------------------------------------------------------------------------------------------


@mutant("any-path", kills=("ORB-HSK-01",))
class AnyPath(ModelEngine):
    """Accepts WebSockets on every path, not only on /ws."""

    def status_for(self, request: Request) -> int:
        return 101 if self.origin_is_allowed(request) else 403


@mutant("text-frames-obeyed", kills=("ORB-HSK-02",))
class TextFramesObeyed(ModelEngine):
    """Takes text frames for messages in JSON, though the protocol is CBOR."""

    def on_text(self, connection: Connection, event: TextMessage) -> None:
        try:
            message = json.loads(event.data)
        except ValueError:
            return
        if type(message) is dict:
            self.on_message(connection, message)


@mutant("text-frames-crash", kills=("ORB-HSK-02",))
class TextFramesCrash(ModelEngine):
    """One text frame ends the whole process."""

    def on_text(self, connection: Connection, event: TextMessage) -> None:
        raise Crashed("text where bytes were expected")


@mutant("undecodable-1011", kills=("ORB-HSK-03",))
class UndecodableIsOurFault(ModelEngine):
    """Closes with 1011, internal error, when a peer sends what is not CBOR."""

    def close_code_for(self, problem: str) -> int:
        return 1011 if problem == "undecodable message" else super().close_code_for(problem)


@mutant("no-close-frame", kills=("ORB-HSK-03",))
class NoCloseFrame(ModelEngine):
    """Hangs up on undecodable messages without a close frame: the peer cannot know why."""

    def refuse(self, connection: Connection, problem: str) -> None:
        if problem == "undecodable message":
            self.drop(connection)
        else:
            super().refuse(connection, problem)


@mutant("good-bye-unanswered", kills=("ORB-HSK-03",))
class GoodByeUnanswered(ModelEngine):
    """Hangs up on a close frame without one of its own: to its peer each good-bye is a broken network."""

    def on_good_bye(self, connection: Connection, close: CloseConnection) -> None:
        pass


@mutant("fragments-are-messages", kills=("ORB-HSK-04",))
class FragmentsAreMessages(ModelEngine):
    """Takes each fragment of a message for a message."""

    def on_bytes(self, connection: Connection, event: BytesMessage) -> None:
        super().on_bytes(connection, replace(event, message_finished=event.frame_finished))


@mutant("busy-means-no-pong", kills=("ORB-HSK-05",))
class BusyMeansNoPong(ModelEngine):
    """Does not answer pings of a worker that has jobs in hand, so that the worker hangs up."""

    def on_ping(self, connection: Connection, ping: Ping) -> None:
        if not (isinstance(connection.role, Worker) and connection.role.in_flight):
            super().on_ping(connection, ping)


@mutant("pong-without-payload", kills=("ORB-HSK-05",))
class PongWithoutPayload(ModelEngine):
    """Its pongs do not carry the ping's payload, so that no library takes them for an answer."""

    def on_ping(self, connection: Connection, ping: Ping) -> None:
        self.send_event(connection, Pong())


@mutant("any-origin", kills=("ORB-HSK-06",))
class AnyOrigin(ModelEngine):
    """Every web page that somebody on this machine looks at may connect."""

    def origin_is_allowed(self, request: Request) -> bool:
        return True


@mutant("junk-is-fatal", kills=("ORB-HSK-07",))
class JunkIsFatal(ModelEngine):
    """Bytes that are no handshake end the whole process."""

    def on_bad_handshake(self, connection: Connection, error: Exception) -> None:
        raise Crashed(str(error))


@mutant("patient-handshake", kills=("ORB-HSK-08",))
class PatientHandshake(ModelEngine):
    """Whoever connects and says nothing keeps the connection for ever."""

    def on_handshake_overdue(self, connection: Connection) -> None:
        pass


# --- REG ----------------------------------------------------------------------------------------------------


@mutant("greets-workers", kills=("ORB-REG-01",))
class GreetsWorkers(ModelEngine):
    """Answers a registration with a message that no worker expects: success is silence."""

    def add_worker(self, connection: Connection, message: dict[str, Any]) -> Worker:
        worker = super().add_worker(connection, message)
        self.send(connection, {"type": "welcome"})
        return worker


@mutant("any-secret", kills=("ORB-REG-02",))
class AnySecret(ModelEngine):
    """Asks for a secret and takes every one."""

    def secret_is_right(self, secret: Any) -> bool:
        return type(secret) is str


@mutant("secret-by-prefix", kills=("ORB-REG-02",))
class SecretByPrefix(ModelEngine):
    """Compares no more of the secret than the worker sent."""

    def secret_is_right(self, secret: Any) -> bool:
        return type(secret) is str and bool(secret) and self.secret.startswith(secret)


@mutant("wrong-secret-1000", kills=("ORB-REG-02",))
class WrongSecretIsNormal(ModelEngine):
    """Closes with 1000 on a wrong secret, and the worker takes it for a good-bye."""

    def close_code_for(self, problem: str) -> int:
        return 1000 if problem == "worker_secret is not right" else super().close_code_for(problem)


@mutant("missing-secret-accepted", kills=("ORB-REG-03",))
class MissingSecretAccepted(ModelEngine):
    """Checks the secret only if there is one."""

    def secret_is_right(self, secret: Any) -> bool:
        return not given(secret) or super().secret_is_right(secret)


@mutant("missing-type-accepted", kills=("ORB-REG-04",))
class MissingTypeAccepted(ModelEngine):
    """A worker that does not say its type is taken for one of the first type."""

    def worker_type_of(self, config: dict[str, Any]) -> str:
        return super().worker_type_of({"worker_type": DOCUMENTED_TYPES[0], **config})


@mutant("any-worker-type", kills=("ORB-REG-05",))
class AnyWorkerType(ModelEngine):
    """Accepts any worker type, recognised or not."""

    def recognises(self, worker_type: str) -> bool:
        return True


@mutant("invalid-size-is-default", kills=("ORB-REG-06",))
class InvalidSizeIsDefault(ModelEngine):
    """Takes a batch size of zero, less, or nothing at all for 32."""

    def batch_size_of(self, config: dict[str, Any]) -> int:
        try:
            return super().batch_size_of(config)
        except Refused:
            return 32


@mutant("invalid-latency-is-default", kills=("ORB-REG-07",))
class InvalidLatencyIsDefault(ModelEngine):
    """Takes a latency of zero or less for 30 seconds."""

    def latency_of(self, config: dict[str, Any]) -> float:
        try:
            return super().latency_of(config)
        except Refused:
            return 30.0


@mutant("default-size-16", kills=("ORB-REG-08",))
class DefaultSize16(ModelEngine):
    """Batches of 16 for workers that do not say a size, instead of 32."""

    def batch_size_of(self, config: dict[str, Any]) -> int:
        return super().batch_size_of(config) if given(config.get("max_batch_size")) else 16


@mutant("default-latency-5-s", kills=("ORB-REG-08",))
class DefaultLatency5s(ModelEngine):
    """Partial batches after 5 seconds for workers that do not say a latency, instead of 30."""

    def latency_of(self, config: dict[str, Any]) -> float:
        return super().latency_of(config) if given(config.get("max_latency_ms")) else 5.0


@mutant("second-registration-counts", kills=("ORB-REG-09",))
class SecondRegistrationCounts(ModelEngine):
    """A worker that registers twice is two workers, and the first one's jobs are never looked after."""

    def on_second_registration(self, connection: Connection, message: dict[str, Any]) -> None:
        if message["type"] == "i_am_worker" and isinstance(connection.role, Worker):
            self.add_worker(connection, message)
        else:
            super().on_second_registration(connection, message)


@mutant("strangers-tolerated", kills=("ORB-REG-10",))
class StrangersTolerated(ModelEngine):
    """A peer may say anything before it registers."""

    def on_unregistered(self, connection: Connection, message: dict[str, Any]) -> None:
        pass


@mutant("two-roles", kills=("ORB-REG-11",))
class TwoRoles(ModelEngine):
    """A worker may become a client, and a client a worker, on the same connection."""

    def on_second_registration(self, connection: Connection, message: dict[str, Any]) -> None:
        if message["type"] == "i_am_server" and isinstance(connection.role, Worker):
            self.add_client(connection, message)
        elif message["type"] == "i_am_worker" and isinstance(connection.role, Client):
            self.add_worker(connection, message)
        else:
            super().on_second_registration(connection, message)


@mutant("strict-registration", kills=("ORB-REG-12",))
class StrictRegistration(ModelEngine):
    """Refuses a registration that has a field it does not know: no later version can ever talk to it."""

    def on_first_message(self, connection: Connection, kind: Any, message: dict[str, Any]) -> None:
        if kind == "i_am_worker" and set(message) != {"type", "worker_secret", "worker_config"}:
            raise Refused("worker_config is not valid")
        super().on_first_message(connection, kind, message)


@mutant("secret-echoed", kills=("ORB-REG-13",))
class SecretEchoed(ModelEngine):
    """Says in the close frame which secret was wrong, and with it whatever was typed in the wrong field."""

    echo = ""

    def secret_is_right(self, secret: Any) -> bool:
        self.echo = str(secret)[:60]
        return super().secret_is_right(secret)

    def close_reason_for(self, problem: str) -> str:
        return f"{problem}: {self.echo}" if self.echo else problem
