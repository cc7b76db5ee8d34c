"""The workers of this repository: a file per worker type, each a model and a call of `run_program`.

In a checkout they are ``python -m workers TYPE``; an installed orbtrio has them as ``orbtrio-worker TYPE``,
in the package ``orbtrio_workers``, because so common a name as this one is not ours to claim. Hence the
relative imports in here. To write a worker of your own, copy the shortest.

====================== =========================================================================
``embedding``          texts and pictures as vectors whose angles tell how alike their meanings are
``llm``                a language model that answers messages
``vlm``                the same, with pictures among the words
``caption``            a sentence about pictures, or an answer to a question about them
``object_detection``   what is in a picture, and where
``segmentation``       the same, with outlines
``video_segmentation`` the same, frame by frame, with numbers that stay with each thing
``motion_energy``      how much a camera's picture has changed since its last frame
====================== =========================================================================

``python -m workers`` tells which models are installed, and how to install the others; ``python -m workers
TYPE --help`` what a worker reads from its environment. Spec: "Message Shapes by Worker Type".
"""
