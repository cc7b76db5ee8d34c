"""The whole system on a real video: ``python -m orbtrio.demo [VIDEO] [--out demo.png]``.

```
this process: frames of the video, and texts
      │   500 motion_energy jobs on four media ids, 200 embedding jobs
   engine process ─┬─ two motion_energy workers
                   └─ one embedding worker
```

What stands between the jobs and their answers is what a user runs: `orbtrio.connect` here, ``python -m``
for the engine and the workers. The demo also judges. It ends with status 0 only if every job was answered
rightly, which it can tell: motion energy is cheap to compute again, and it knows which text answers which
question.

| module | what it knows |
|---|---|
| `clip` | how to make or read a video, and what its motion energies must be |
| `texts` | what to embed, and which texts must end up side by side |
| `picture` | how to show motion energy to a person |
| `__main__` | the processes, the live table, the verdict |

It needs the extra ``demo`` and, for the workers, a checkout; nothing else in orbtrio imports it.
"""
