"""The workers of this repository: a file per worker type, each a model and a call of `run_program`.

They run in a checkout, as ``python -m workers.embedding``, and are no part of the installed package, which
has no business claiming so common a name. To write one of your own, copy the shortest.

===================  ==============================================================
========================== ``motion_energy``    how much a camera's picture has changed since its last frame
``.[motion-energy]`` ``embedding``        texts as vectors whose angles tell how alike their meanings are
``.[embedding]`` ===================  ==============================================================
==========================

Each needs the extra that stands behind it and ``WORKER_SECRET``; ``--help`` tells the rest. Spec: "Message
Shapes by Worker Type".
"""
