"""What a job costs: the engine as its own process, under load from this one.

`end_to_end` is the program; start reading at `cases`. Each module has one thing to know:

- `work`: what jobs ask for, and the right answers. `cases`: the lines of the table. `bars`: what to reach.
- `wire`: the bytes of handshake, frames and messages, made before the clock starts.
- `connections`: clients and workers, and the proof afterwards that every answer was right. `load`: all of
  them on one epoll loop. `pinger`: how long the engine's loop lets anybody wait.
- `processes`: engines as processes, and the CPU time that the kernel says they used.
- `baseline`: the engine most people would write, measured beside ours in the same run.
- `floor`: the CBOR library alone, for nothing can be cheaper that decodes and encodes each message once.
- `measure`: one case on all engines, in turn. `table`, `report`: its figures as text, JSON and a picture.
- `check`: is it slower than it was?

Nothing here imports orbtrio: a mistake made in both would prove itself right.
"""
