"""Fixtures of the tests of data sets."""

from __future__ import annotations

import urllib.request
from urllib.error import URLError

import pytest

from microstep.components.dataset.decoding import Decoder


@pytest.fixture
def offline(monkeypatch) -> list[str]:
    """Disable the network; return the addresses that were requested."""
    asked: list[str] = []

    def refuse(request, *arguments, **keys):
        asked.append(getattr(request, "full_url", request))
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that are decoded in this process."""
    seen: list[str] = []
    real = Decoder.__call__
    monkeypatch.setattr(Decoder, "__call__", lambda self, file: seen.append(file.name) or real(self, file))
    return seen
