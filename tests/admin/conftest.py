from __future__ import annotations

from pathlib import Path

import pytest

from tests.admin.calling import Mailctl


@pytest.fixture
def ctl(tmp_path: Path) -> Mailctl:
    """mailctl over a store that does not exist yet."""
    return Mailctl(tmp_path)


@pytest.fixture
def ann(ctl: Mailctl) -> Mailctl:
    """mailctl over a store with ann@example.org."""
    return ctl.with_user()
