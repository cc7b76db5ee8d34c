"""The same work done by orbtrio and by systems that people use instead, each measured beside it.

    python -m benchmarks.peers               # all that are installed; nox -s bench-peers installs them
    python -m benchmarks.peers --only mosec --rounds 1 --seconds 1

The work is an echo: a text of 100 B or 10 KB goes to the server as a job, through whatever forms the system's
batches of 32, to one worker process, and comes back. 256 jobs are on their way at any time; then one at a
time. What a model would do is left out, for it costs the same everywhere: what remains is the system itself.

A number here is a claim about somebody else's work, so the rules are strict:

- Every answer is held against its job. One that is wrong or missing ends the system's measurement.
- What counts is CPU time of *all* server processes, by the kernel's own clocks: brokers, proxies, daemons and
  workers, and those that ended meanwhile (`cpu`). The programs that ask cost nobody anything.
- Each system runs with the settings that its documentation gives for throughput, and for lone jobs once more
  with those that it gives for latency. `systems` has one module for each, made so that its authors would find
  nothing to object to: `serve` is written as in their manual.
- Each is measured beside an orbtrio of its own, rounds in turn, so that a ratio compares the same minutes.
  Systems asked over a connection for each job are compared with an orbtrio that is asked so, by the same load
  program, and systems asked by a client of their own with an orbtrio asked by its client.

| module | does |
|---|---|
| `work` | texts, the echo that every worker runs, the check |
| `cpu` | the CPU time of a whole tree of processes |
| `servers` | starts and ends a system's processes |
| `system` | what a system is |
| `sockets` | asks over plain connections: HTTP, WebSocket |
| `systems` | one module for each system |
| `stage` | one system in a process of its own, which takes orders |
| `measure` | gives the orders: what is measured in which order, and the figures of it |
| `table`, `picture` | what is shown |

Rejected: all systems up at once, rounds in turn over all. Ray's daemons never rest, and would slow down
everybody else's lone jobs. Rejected as well: jobs per second as the main figure. With two cores the load
program and the servers share them, and whoever asks more cheaply would look faster.
"""
