"""Commands that come by file are waited for however busy the machine is."""

from __future__ import annotations

import pytest
from waiting import PATIENCE

from polybeast_moe.control import client


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_INBOX_PATIENCE", PATIENCE)
