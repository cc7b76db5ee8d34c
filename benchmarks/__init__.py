"""What a job costs: the engine as its own process, under load from this one.

`end_to_end` measures and prints; start reading at `cases`. Each module has one thing to know:

- `cases`: what is measured, and what is sent for it.
- `wire`: the bytes of handshake, frames and messages, made before the clock starts.
- `load`: clients and workers on one epoll loop, and the proof afterwards that every answer was right.
- `processes`: engines as processes, and the CPU time that the kernel says they used.
- `baseline`: the engine most people would write, measured beside ours in the same run.
- `floor`: the CBOR library alone, for nothing can be cheaper that decodes and encodes each message once.

Nothing here imports orbtrio: a mistake made in both would prove itself right.
"""
