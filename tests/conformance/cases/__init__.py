"""Tests of the cases. What they have in common is asserted in `case_tests`, as readably as in a test."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(f"{__name__}.case_tests")
