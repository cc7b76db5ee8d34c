"""Stock peers: a worker, a client and an engine written from the spec's text alone.

They use asyncio, `websockets` and `cbor2`, and stand for the programs that other people wrote. They know no
extension, import nothing of orbtrio, and where the spec's own examples are careless they are careless in the
same way. An interoperability test that fails against them is our fault.
"""
