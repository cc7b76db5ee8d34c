"""A sidecar that makes any program with two webhooks a worker.

`python -m orbtrio.toolkit -- PROGRAM …` starts the program, waits until it is ready, registers with an ORB
engine as ``et:<engineId>``, and turns every job into a POST to the program's ``/process``. What the program
posts back meanwhile, heartbeats and results, travels to the client as progress. The program may be written in
any language; see `orbtrio.toolkit.engine` for help with one in Python, and `orbtrio.toolkit.samples`.

Here "engine" has two meanings, since the text that this follows calls the program so: the *ORB engine* gives
out jobs, the *HTTP engine* is the program that does them.

Follow one job: `handler` (the job comes) → `jobs` (its input, checked) → `calls` and `request` (POST
/process) → `answers` (what came back means) → `items` (when it is over) → `handler` (the job's result).
Beside it: `webhooks`, where the program calls us, and `process`, which keeps it alive.

Spec: AIWARE_EDGE_ENGINES.md; the rows ET-… of its requirements stand in the tests' names.
"""
