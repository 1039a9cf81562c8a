"""A headless Chromium, driven by the DevTools protocol over a pair of pipes.

Waits are for conditions in the page, with a bound; there are no pauses. What the page complains about (exceptions,
errors in its console, breaches of its content security policy) is collected, and a test looks at it.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WAIT_S = 30.0
LIVE = (
    "document.getElementById('connection')?.dataset.state === 'live'"
    " && document.getElementById('cluster-name').textContent"
)
_PLACE_PIPES = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The protocol's pipes are descriptors 3 and 4."""
_KEYS = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


def program() -> str | None:
    return next((path for name in PROGRAMS if (path := shutil.which(name)) is not None), None)


class BrowserGone(Exception):
    pass


class Browser:
    """One process; `close` ends it."""

    def __init__(self, path: str, directory: Path) -> None:
        """`directory`: where it may keep its profile."""
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()

        arguments = [
            sys.executable,
            "-c",
            _PLACE_PIPES,
            str(theirs_in),
            str(theirs_out),
            path,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={directory}",
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--disable-sync",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--mute-audio",
            "--force-color-profile=srgb",
            "--password-store=basic",
            "--no-sandbox",  # which root, and users in most containers, cannot have; pages are our own
            "about:blank",
        ]
        self._log = open(directory / "browser.log", "wb")  # noqa: SIM115 - closed in `close`
        self._process = subprocess.Popen(
            arguments,
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = ours_out, ours_in
        self._received = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        with contextlib.suppress(BrowserGone, TimeoutError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._log.close()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The result of a command. Raises `RuntimeError` with what the browser says."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        try:
            os.write(self._out, json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise BrowserGone from None
        until = time.monotonic() + WAIT_S
        while True:
            answer = self._receive(until)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise BrowserGone
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def page(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> "Page":
        """A new page in a context of its own: no storage is shared."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        # A page without the focus of its window shows no focus, and gets frames seldom.
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.size(width, height)
        page.theme("dark" if dark else "light")
        return page


class Page:
    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self.expected: list[str] = []
        """Words of complaints that the test provokes."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def theme(self, name: str) -> None:
        """What the system prefers."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of an expression; a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:2000])
        return result["result"].get("value")

    def until(self, condition: str, *, within_s: float = WAIT_S) -> Any:
        """The value of an expression as soon as it is true."""
        until = time.monotonic() + within_s
        script = f"((value) => (value instanceof Node ? true : value))({condition})"
        while True:
            try:
                value = self.evaluate(script)
            except RuntimeError:  # the page is just being replaced
                value = None
            if value:
                return value
            if time.monotonic() > until:
                raise AssertionError(f"not within {within_s:g} s: {condition}\n{self.text()[:3000]}")
            self.evaluate("new Promise((resolve) => setTimeout(resolve, 50))")

    def wait_live(self) -> None:
        """The feed has come, and a frame with it."""
        self.until(LIVE)
        self.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")

    def text(self) -> str:
        return str(self.evaluate("document.body?.innerText ?? ''"))

    def key(self, key: str, *, shift: bool = False) -> None:
        """Press and release one key."""
        event: dict[str, Any] = {"key": key, "modifiers": 8 if shift else 0}
        if key in _KEYS:
            event |= {"windowsVirtualKeyCode": _KEYS[key], "code": key}
        if len(key) == 1:
            event["text"] = key
        elif key == "Enter":
            event["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown" if "text" in event else "rawKeyDown", **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self, *, allowed: Sequence[str] = ()) -> list[str]:
        """What went wrong in the page so far, without what has one of these words in it."""
        self.evaluate("1")  # events that are on their way
        found = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            parameters = event.get("params", {})
            match event.get("method"):
                case "Runtime.exceptionThrown":
                    details = parameters["exceptionDetails"]
                    found.append(details.get("exception", {}).get("description") or details["text"])
                case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                    found.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
                case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                    found.append(" ".join(str(each.get("value", "")) for each in parameters["args"]))
        return [line for line in found if not any(word in line for word in allowed)]

    def requests(self) -> list[str]:
        """The addresses that the page has asked for."""
        self.evaluate("1")
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event.get("method") == "Network.requestWillBeSent"
        ]
