"""Tests of `orbtrio.worker`."""
