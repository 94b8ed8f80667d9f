"""A headless Chromium, spoken to over two pipes in its devtools protocol: pages are seen as a person would see them."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
#: All text of a document, through every shadow root, whatever the components hide.
TEXT = """(() => {
  const text = (node) => [...(node.shadowRoot ? text(node.shadowRoot) : []), ...[...node.childNodes].flatMap(
    (n) => n.nodeType == 3 ? [n.data] : ["STYLE", "SCRIPT"].includes(n.nodeName) ? [] : text(n))];
  return text(document.body).map((t) => t.trim()).filter(Boolean).join("\\n");
})()"""
#: Elements that match a selector, through every shadow root, are what `all(selector)` returns.
ALL = """const all = (selector, root = document) => [...root.querySelectorAll(selector),
  ...[...root.querySelectorAll("*")].flatMap((n) => n.shadowRoot ? all(selector, n.shadowRoot) : [])];"""


class Page:
    """One page. Its `errors` are what scripts threw or complained of, and what could not be loaded."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.buffer, self.number, self.session = b"", 0, ""
        self.errors: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Go to an address in a window of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression; `all(selector)` in it finds elements in shadow roots, too."""
        body = f"(() => {{ {ALL} return ({script}); }})()"
        answer = self.send("Runtime.evaluate", expression=body, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self) -> str:
        """Return all text of the page, a line a node."""
        return str(self.evaluate(TEXT))

    def wait(self, script: str, seconds: float = 15) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < end, f"never true: {script}\n{self.text()[:2000]}"
            time.sleep(0.1)

    def screenshot(self, file: Path) -> None:
        """Write what the window shows as PNG."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        text = json.dumps(message | ({"sessionId": self.session} if self.session else {}))
        os.write(self.writing, text.encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            self.note(answer)
        assert "error" not in answer, (method, answer)
        return dict(answer["result"])

    def receive(self) -> dict[str, Any]:
        """Return the next message."""
        while b"\0" not in self.buffer:
            assert select.select([self.reading], [], [], 30)[0], "Chromium doesn't answer"
            read = os.read(self.reading, 1 << 16)
            assert read, "Chromium has ended"
            self.buffer += read
        message, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(message))

    def note(self, event: dict[str, Any]) -> None:
        """Keep what is an error."""
        found = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = found["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        if event.get("method") == "Runtime.consoleAPICalled" and found["type"] == "error":
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in found["args"]))
        if event.get("method") == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.errors.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")


@contextmanager
def browsing() -> Iterator[Page]:
    """Start Chromium with a page, end it afterwards."""
    reading, commands = os.pipe()
    events, writing = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 50) for end in (reading, writing)]  # not 3 or 4, which they are to become
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        become = ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "bash"]
        command = [*become, str(PROGRAM), *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        process = subprocess.Popen(command, pass_fds=high, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for end in (reading, writing, *high):
            os.close(end)
        try:
            yield Page(events, commands)
        finally:
            process.terminate()
            process.wait(10)
            os.close(events)
            os.close(commands)
