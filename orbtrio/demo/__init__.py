"""The whole system on a real video: ``python -m orbtrio.demo [VIDEO] [--out demo.png]``.

```
this process: frames of the video, photographs, texts, questions
      │   700 jobs
   engine process ─┬─ two motion_energy workers
                   └─ one each of embedding, llm, object_detection, segmentation, video_segmentation
```

What stands between the jobs and their answers is what a user runs: `orbtrio.connect` here, ``python -m``
for the engine and the workers. The demo also judges. It ends with status 0 only if every job was answered
rightly, which it can tell: motion energy is cheap to compute again, it knows which text answers which
question, and what nobody could overlook on its photographs.

| module | what it knows |
|---|---|
| `clip` | how to make or read a video, and what its motion energies must be |
| `texts` | what to embed, and which texts must end up side by side |
| `photographs` | what must be found on which photograph, and where |
| `talk` | what to ask a language model, and what its answers must contain |
| `jobs` | which jobs there are, and in which order |
| `panels`, `picture` | how to show the answers to a person |
| `verdict` | whether all is right |
| `system` | the processes |
| `__main__` | asking, the live table, the end |

It needs the extra ``demo`` and, for the workers, a checkout; nothing else in orbtrio imports it.
"""
