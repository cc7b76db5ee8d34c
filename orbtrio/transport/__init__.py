"""Messages over WebSocket connections: queue and flush frames, receive what one read brought, close.

The only package that knows the WebSocket library. How bytes travel:

    network --Reader--> FrameParser --whole binary messages--> Transport.receive(), called by the session
                             |
                             +--pings--> Pongs --------------------------------------------------------+
                             +--pongs, close--> ControlStream --> trio-websocket --its own frames---------+
                                                                                                          v
    network <--Writer, one call per flush-- the outgoing buffer <--Transport.queue(), called by the session

The session's task is the only reader of the network. trio-websocket keeps what is hard to get right and
happens rarely: upgrade, our own pings, close handshake. It sits on a Trio stream that shows it control
frames only, and both it and the session write to one buffer, so that frames never interleave.

| module | what it hides |
|---|---|
| `frames` | the format of a frame; bytes in, messages out, no I/O |
| `pipes` | whether bytes go through a TCP socket of our own or through any other Trio stream |
| `outgoing` | that the network may take less than we have |
| `incoming` | who reads when, and that trio-websocket does not get to see data |
| `turns` | that a turn of Trio's loop must not last, however many sockets are readable |
| `pongs` | how pings are answered |
| `connection` | what a connection is: `Transport`, its life and its death |
| `dial` | a URL, TCP, TLS, and what a server may answer instead of a WebSocket |
| `opening` | both ends' context managers |

Rejected: trio-websocket by itself (36 us to receive 100 bytes and 45 to send them; here 0.8 and 0.5);
`websockets` as a sans-I/O protocol (4 us a frame, and a second library); a reader task that calls back with
each message (no cheaper, and back-pressure becomes the callback's business).
"""

from __future__ import annotations

from orbtrio.transport.connection import Transport, TransportLimits
from orbtrio.transport.dial import authority
from orbtrio.transport.opening import open_client_transport, open_server_transport
from orbtrio.transport.outgoing import Flusher
from orbtrio.transport.turns import Turns

__all__ = [
    "Flusher",
    "Transport",
    "TransportLimits",
    "Turns",
    "authority",
    "open_client_transport",
    "open_server_transport",
]
