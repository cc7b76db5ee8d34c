"""A conformance suite for the ORB Worker Protocol: point it at an engine, a worker or a client, and learn,
sentence by sentence of the spec, what holds.

    python -m orbtrio.conformance engine --launch 'CMD'       # or --url ws://127.0.0.1:5000/ws
    python -m orbtrio.conformance worker --launch 'CMD'
    python -m orbtrio.conformance client --launch 'CMD'

It is black-box: bytes over a WebSocket, in real time against a program, or in virtual time against a target
in this process. It shares no code with the programs that it tests.

To read it, follow a plan from the case that draws it to the verdict:

| | where | what happens |
|---|---|---|
| 1 | `cases` | a case: the sentences that it pins, a strategy for plans, a function that plays one |
| 2 | `search` | hypothesis draws plans, and makes one that failed small |
| 3 | `runner` | a stage is set, the plan is played, the outcome judged by the profile |
| 4 | `engine_stage`, `worker_stage`, `client_stage` | what cases play on: peers, time, demands, barriers |
| 5 | `players`, `client_players`, `peer` | jobs and batches; messages and frames, all of them logged |
| 6 | `sockets`, `simulation`, `inprocess` | worlds: real time, a target of the zoo, our own engine |
| 7 | `report` | what a person reads |

`zoo` has programs that are wrong on purpose, `selftest` demands that each is found. `spec` knows the
sentences, of the spec and about extensions, which are judged where an engine announces them, or a peer asks;
`profiles` knows which readings of them are right.
"""
