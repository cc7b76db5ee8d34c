"""The README's table of settings is the one that the code prints."""

from __future__ import annotations

import re
from pathlib import Path

from orbtrio.engine.config import settings_table

README = Path(__file__).resolve().parents[2] / "README.md"


def test_readme_lists_the_settings() -> None:
    assert README.exists(), "README.md is missing; it must hold settings_table() between its markers"
    found = re.search(r"<!-- settings -->\n(.*?)<!-- /settings -->", README.read_text(), re.DOTALL)
    assert found, "README.md lacks the markers <!-- settings --> and <!-- /settings -->, each on its own line"
    assert found[1].strip() == settings_table().strip(), "README.md is behind: put settings_table() in again"
