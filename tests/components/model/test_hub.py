"""torchvision's weights are fetched once, whole and checked; where they can't be had a line says what to put where."""

from __future__ import annotations

import gc
import io
import socket
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from microstep.components.model import torchvision_model
from microstep.components.model import weights as hub
from microstep.errors import DataError, StorageError
from tests.components.model.states import NAME, core, saved, trained_state

FILE = f"{NAME}-047dcff4.pth"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *words) -> None:
        pass


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """Return torch.hub's directory of files in a test."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    """A server of the files in `served`, on this machine."""
    (tmp_path / "served").mkdir()
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def refusal(url: str) -> str:
    with pytest.raises(DataError) as caught:
        hub.find_default_file(url)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_file_is_fetched_once_and_checked(server, home, tmp_path) -> None:
    """Its name promises its SHA-256; the second time it is there, whether the server is or not."""
    content = bytes(range(256))
    name = f"weights_v1-{sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "served" / name).write_bytes(content)
    assert hub.find_default_file(f"{server}/{name}") == home / name
    assert (home / name).read_bytes() == content
    assert hub.find_default_file(f"http://127.0.0.1:1/{name}") == home / name


def test_what_does_not_keep_its_names_promise_is_not_kept(server, home, tmp_path) -> None:
    """A page of somebody's gateway, say, or half of a file: nothing of it stays."""
    (tmp_path / "served" / "weights-01234567.pth").write_bytes(b"<html>")
    line = refusal(f"{server}/weights-01234567.pth")
    assert "sent a file whose SHA-256 is not the one in its name; put weights-01234567.pth from http://" in line
    assert not list(home.iterdir())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/weights-01234567.pth", "http://no.invalid/weights-01234567.pth"])
def test_a_host_that_is_not_there_is_named(url, home) -> None:
    """The one line says what to fetch by hand, from where, and into which directory."""
    line = refusal(url)
    assert line.startswith(f"model.weights=DEFAULT: {url.split('/')[2]} can't be reached (")
    assert line.endswith(f"; put weights-01234567.pth from {url} into {home}, or type model.weights=FILE")
    assert not list(home.iterdir())


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # urllib's own, about the connection of an earlier test
def test_a_file_that_the_server_has_not_is_an_error_too(server) -> None:
    """404 is said."""
    assert "File not found" in refusal(f"{server}/weights-01234567.pth")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # urllib's own, about a connection that timed out
def test_a_silent_server_is_left(home, monkeypatch) -> None:
    """It takes the call and says nothing: after a while that is an error, and other connections wait as before."""
    monkeypatch.setattr(hub, "CONNECTION_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line = refusal(f"http://127.0.0.1:{silent.getsockname()[1]}/weights-01234567.pth")
    gc.collect()
    assert "can't be reached (timed out)" in line
    assert not list(home.iterdir())
    assert socket.getdefaulttimeout() is None


def test_a_directory_that_can_not_be_written_is_told_apart(home) -> None:
    """That is no matter of the network."""
    home.parent.mkdir(parents=True)
    home.write_text("in the way")
    with pytest.raises(StorageError, match="checkpoints"):
        hub.find_default_file("http://127.0.0.1:1/weights-01234567.pth")


def test_default_without_a_network(home, monkeypatch) -> None:
    """A model's default weights: the file's full name, where it is to be had, and where it goes."""

    def unreachable(*_, **__) -> None:
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(DataError) as caught:
        torchvision_model(NAME, (3, 32, 32), 4, weights="DEFAULT")
    reason = "download.pytorch.org can't be reached ([Errno -2] Name or service not known)"
    remedy = f"put {FILE} from https://download.pytorch.org/models/{FILE} into {home}, or type model.weights=FILE"
    assert str(caught.value) == f"model.weights=DEFAULT: {reason}; {remedy}"


def test_a_damaged_default_file_is_refused(home) -> None:
    """It isn't loaded, although torch could: its SHA-256 is not the one in its name."""
    home.mkdir(parents=True)
    saved(trained_state(), home / FILE)
    with pytest.raises(DataError, match=rf"{FILE} is damaged: .*; remove it to download it again"):
        torchvision_model(NAME, (3, 32, 32), 4, weights="DEFAULT")


def test_a_good_default_file_is_loaded(home, monkeypatch) -> None:
    """A file put there by hand needs no network. The expected digest is replaced by that of a made-up file."""
    home.mkdir(parents=True)
    stream = io.BytesIO()
    torch.save(trained_state(), stream)
    (home / FILE).write_bytes(stream.getvalue())
    monkeypatch.setattr(hub, "expected_digest", lambda _: sha256(stream.getvalue()).hexdigest()[:8])
    model = core(torchvision_model(NAME, (3, 32, 32), 4, weights="DEFAULT"))
    first = "features.0.0.weight"
    assert torch.equal(model.state_dict()[first], trained_state()[first])
