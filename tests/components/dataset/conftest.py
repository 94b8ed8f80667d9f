"""Fixtures of the tests of data sets."""

from __future__ import annotations

import urllib.request
from urllib.error import URLError

import pytest


@pytest.fixture
def offline(monkeypatch) -> list[str]:
    """Disable the network; return the addresses that were requested."""
    asked: list[str] = []

    def refuse(request, *arguments, **keys):
        asked.append(getattr(request, "full_url", request))
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked
