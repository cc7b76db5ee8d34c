"""Tests of the zoo. What its faults have in common is asserted in `differing`, as readably as in a test."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(f"{__name__}.differing")
