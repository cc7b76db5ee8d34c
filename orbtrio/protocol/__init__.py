"""The ORB Worker Protocol without I/O: bytes in, messages out, and back.

Nothing here knows of sockets, clocks, disks or tasks, so all of it is tested with plain calls. Bottom up:

- `references`: resources, and the references to them inside of jobs.
- `scan`: a walk over CBOR bytes that proves them harmless before anything is built from them.
- `registration`: how a peer introduces itself, and the extensions that it asks for.
- `answers`: results and progress, and what a client hears of them.
- `messages`: the other messages, all of them together, and the rules that make them valid.
- `bulk`: jobs too large for any worker, found before they cost anything.
- `splice`: messages put together from pieces that are encoded already.
- `codec`: bytes to messages and messages to bytes; the only module that knows the CBOR library.
- `connection`: which message is legal when, for both ends, as one table.
"""
