"""A real browser without a window, driven over a pipe by the DevTools protocol: no port, no driver, no other program.

The protocol: https://chromedevtools.github.io/devtools-protocol. Messages are JSON, each ends in a zero byte.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["CHROMIUM", "Tab", "browser"]

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""Where it is; ``None`` if there is none."""
_OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in CI; the pages are ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class Tab:
    """One tab."""

    def __init__(self, ask: int, answer: int) -> None:
        self._ask, self._answer = ask, answer
        self._rest = b""
        self._number = 0
        self._session = ""
        self.heard: list[dict[str, Any]] = []
        """What the browser said by itself, such as console messages."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers to one command."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        data = json.dumps({"id": self._number, "method": method, "params": params, **session}).encode() + b"\0"
        while data:
            data = data[os.write(self._ask, data) :]
        while True:
            said = self._read()
            if said.get("id") == self._number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result
            self.heard.append(said)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file, from anew, and wait until its page has judged what it carries."""
        self._navigate("about:blank")
        self._navigate(path.as_uri() + fragment)
        self.value("Page.ready.then(() => true)")

    def value(self, script: str) -> Any:
        """What an expression, or the promise that it makes, comes to."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path, *, width: int, dark: bool = False) -> None:
        """The whole page, as it looks at that width in pixels."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(shot))

    def _navigate(self, url: str) -> None:
        self.heard.clear()
        self.call("Page.navigate", url=url)
        while not any(said.get("method") == "Page.loadEventFired" for said in self.heard):
            self.heard.append(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._answer, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(line)
        return said


@contextmanager
def browser() -> Iterator[Tab]:
    """A tab of a browser of its own, with a profile of its own, that ends with the block."""
    assert CHROMIUM is not None
    inward, ask = os.pipe()
    answer, outward = os.pipe()
    with tempfile.TemporaryDirectory(prefix="govmesh-browser-", ignore_cleanup_errors=True) as profile:
        # It reads commands from descriptor 3 and writes answers to 4, whatever their numbers are here.
        start = 'exec 5<&"$1" 6>&"$2"; exec 3<&5 4>&6; shift 2; exec "$@"'
        command = ["bash", "-c", start, "browser", str(inward), str(outward), CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(command, pass_fds=(inward, outward), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(inward)
        os.close(outward)
        try:
            yield Tab(ask, answer)
        finally:
            os.close(ask)
            os.close(answer)
            process.terminate()
            process.wait(timeout=10)
