"""Engines to begin with: `words` in Python, ``lines.js`` in JavaScript, ``size.sh`` in shell; and an image.

The latter two use nothing of ours: what they show is that any program that answers HTTP will do. The image is
of the first one, by ``Dockerfile``.
"""
