"""The servers: what somebody who uses these systems would write, after each one's own manual.

Each module is a program with the same model, `benchmarks.peers.work.Echo`, and imports its library at the
top; so nothing else may import these. What they are told comes in the command line or, where a system's own
launcher imports the module, in the environment.
"""
