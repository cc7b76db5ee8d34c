"""A live table of an engine at work: ``python -m orbtrio.top [URL]``.

It reads what any Prometheus would, ``/metrics``, so it may run anywhere, and the engine knows nothing of it.

| module | what it knows |
|---|---|
| `figures` | the engine's metrics, and what became of them between two readings |
| `tables` | how a person reads that: columns, units, what to leave out on a small screen |
| `__main__` | the URL, the clock, the terminal |
"""
