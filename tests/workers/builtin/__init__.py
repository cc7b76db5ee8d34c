"""Tests of the parts of `workers.builtin` that need no weights."""
