"""A headless Chromium that is driven: pages are opened and clicked, and what they complain of is kept.

It speaks the DevTools protocol over two pipes, which --remote-debugging-pipe reads and writes as 3 and 4.
"""

import json
import os
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from tests.faces.browser import FOUND

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
    "--window-size=1200,1400",
)  # fmt: skip
PATIENCE = 60.0
"""Seconds that are waited for what a page should do."""


@dataclass
class Tab:
    """One page; `complaints` are the errors of its console, and what it asked of other machines."""

    sent: IO[bytes]
    came: IO[bytes]
    session: str = ""
    complaints: list[str] = field(default_factory=list[str])
    asked: list[str] = field(default_factory=list[str])
    _number: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a method of the protocol answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        self.sent.write(json.dumps(message).encode() + b"\0")
        self.sent.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def value(self, script: str) -> Any:
        """What an expression of the page's is."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str) -> Any:
        """What an expression is as soon as it is something."""
        end = time.monotonic() + PATIENCE
        while not (found := self.value(script)):
            assert time.monotonic() < end, f"{script} stayed {found!r}; the console: {self.complaints}"
            time.sleep(0.2)
        return found

    def type(self, field: str, text: str) -> None:
        """Puts text in the place of what a field holds, as keys do, and leaves it."""
        self.value(f"(() => {{ const f = document.querySelector('{field}'); f.focus(); f.select(); }})()")
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
            self.call("Input.dispatchKeyEvent", type=kind, **key)
        self.value("document.activeElement.blur()")

    def picture(self) -> bytes:
        """How it looks, as a PNG."""
        return b64decode(self.call("Page.captureScreenshot")["data"])

    def _read(self) -> bytes:
        found = bytearray()
        while (byte := self.came.read(1)) != b"\0":
            assert byte, "the browser has ended"
            found += byte
        return bytes(found)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"])[:500])
        if event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        if event.get("method") == "Network.requestWillBeSent":
            self.asked.append(parameters["request"]["url"])


@contextmanager
def opened(url: str) -> Generator[Tab]:
    """A page of a browser of its own."""
    theirs, sent = os.pipe()
    came, answers = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [str(FOUND), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        command = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{answers}', "bash", *words]
        browser = subprocess.Popen(
            command, pass_fds=(theirs, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(answers)
        with os.fdopen(sent, "wb") as to, os.fdopen(came, "rb") as back:
            try:
                yield _tab(Tab(to, back), url)
            finally:
                browser.terminate()
                browser.wait(10)


def _tab(tab: Tab, url: str) -> Tab:
    target = tab.call("Target.createTarget", url="about:blank")["targetId"]
    tab.session = tab.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Runtime", "Log", "Network", "Page"):
        tab.call(f"{domain}.enable")
    tab.call("Page.navigate", url=url)
    return tab
