"""Tests of the models in `workers`, on real photographs and real text."""
