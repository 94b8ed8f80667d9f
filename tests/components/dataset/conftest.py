"""What the tests of data sets share."""

from __future__ import annotations

import urllib.request
from urllib.error import URLError

import pytest


@pytest.fixture
def offline(monkeypatch) -> list[str]:
    """A machine without a network; returns the addresses that were asked for all the same."""
    asked: list[str] = []

    def refuse(request, *arguments, **keys):
        asked.append(getattr(request, "full_url", request))
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked
