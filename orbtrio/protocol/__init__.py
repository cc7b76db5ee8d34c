"""The ORB Worker Protocol without I/O: bytes in, messages out, and back.

Nothing here knows of sockets, clocks, disks or tasks, so all of it is tested with plain calls. Read in this
order:

==============
======================================================================================================
`messages`      The messages, valid by construction, and the rules that make them so. `scan`          A walk
over CBOR bytes that proves them harmless before anything is built from them. `codec`         Bytes to
messages and messages to bytes; the only module that knows the CBOR library. `references`    Finding and
replacing resource references inside a job's input. `connection`    Which message is legal when, for both
ends, as one table. ==============
======================================================================================================
"""
