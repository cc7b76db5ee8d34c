"""The ORB Worker Protocol without I/O: bytes in, messages out, and back.

Nothing here knows of sockets, clocks, disks or tasks, so all of it is tested with plain calls. Bottom up:

- `references`: resources, and the references to them inside of jobs.
- `scan`: a walk over CBOR bytes that proves them harmless before anything is built from them.
- `messages`: the messages, and the rules that make them valid.
- `bulk`: jobs too large for any worker, found before they cost anything.
- `codec`: bytes to messages and messages to bytes; the only module that knows the CBOR library.
- `connection`: which message is legal when, for both ends, as one table.
"""
