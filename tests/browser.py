"""Drives a headless Chromium over its DevTools protocol."""

import base64
import itertools
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
OPTIONS += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"]
# Else a sandboxed frame is a target of its own, which would have to be attached to.
OPTIONS += ["--disable-features=IsolateSandboxedIframes"]


# Roles of what is operated, and of what is said about pictures and frames.
CONTROLS = {"button", "checkbox", "combobox", "gridcell", "Iframe", "link", "listbox", "menuitem", "option", "radio"}
CONTROLS |= {"region", "searchbox", "slider", "spinbutton", "switch", "tab", "textbox", "Audio", "grid", "table"}


class Page:
    """The first tab; collects its requests, and errors of its console."""

    def __init__(self, to: BinaryIO, back: BinaryIO):
        self.to, self.back = to, back
        self.received = bytearray()
        self.numbers = itertools.count(1)
        self.session: dict[str, str] = {}
        self.requests: list[str] = []
        self.errors: list[str] = []
        tabs = self.send("Target.getTargets")["targetInfos"]
        target = next(tab["targetId"] for tab in tabs if tab["type"] == "page")
        self.session = {"sessionId": self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **options: Any) -> dict[str, Any]:
        """Call a method of the protocol; returns its result."""
        number = next(self.numbers)
        command = {"id": number, "method": method, "params": options, **self.session}
        self.to.write(json.dumps(command).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message.get("method"), message.get("params", {}))

    def _receive(self) -> dict[str, Any]:
        """The next message, which ends with a zero byte."""
        while b"\0" not in self.received:
            ready, _, _ = select.select([self.back], [], [], 60)
            assert ready, "Chromium does not answer"
            block = self.back.read(2**20)
            assert block, "Chromium has ended"
            self.received += block
        message, _, self.received = self.received.partition(b"\0")
        return json.loads(message)

    def _note(self, event: str | None, details: dict[str, Any]):
        if event == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(details["exceptionDetails"])[:500])
        elif event == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.errors.append(f"{details['entry']['text']} {details['entry'].get('url')}")
        elif event == "Runtime.consoleAPICalled" and details["type"] in ("error", "assert"):
            self.errors.append(json.dumps(details["args"])[:500])

    def run(self, code: str) -> Any:
        """The value of an expression of JavaScript."""
        result = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 30.0):
        """Until an expression is true."""
        ends = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < ends, (
                f"{condition}: not within {seconds} s: {self.run('document.body.innerText')}"
            )
            time.sleep(0.05)

    def frame(self, heading: str) -> str:
        """The id of the frame within the page, once it has a heading."""
        ends = time.monotonic() + 30
        while True:
            for child in self.send("Page.getFrameTree")["frameTree"].get("childFrames", ()):
                name = child["frame"]["id"]
                if ("heading", heading) in [control[:2] for control in self.controls(name)]:
                    return name
            assert time.monotonic() < ends, f"there is no frame with the heading {heading}"
            time.sleep(0.05)

    def open(self, address: str, width: int, height: int, dark: bool):
        """Open a page in a window of this size."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=address)

    def type(self, text: str):
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, key: str, code: int):
        """Press a key."""
        for kind in ("rawKeyDown", "char", "keyUp"):
            text = {"text": "\r"} if kind == "char" and key == "Enter" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def controls(self, frame: str | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """What a screen reader is told of the page, or of a frame of it: role, name, and properties."""
        options = {"frameId": frame} if frame else {}
        nodes = self.send("Accessibility.getFullAXTree", **options)["nodes"]
        return [
            (
                node["role"]["value"],
                node.get("name", {}).get("value", ""),
                {entry["name"]: entry["value"].get("value") for entry in node.get("properties", ())},
            )
            for node in nodes
            if not node["ignored"]
        ]

    def unnamed(self, frame: str | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """The controls that have the keyboard's focus, or a state, and no name."""
        return [control for control in self.controls(frame) if control[0] in CONTROLS and not control[1].strip()]

    def screenshot(self, path: Path):
        """Write a picture of the whole page."""
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))


@contextmanager
def chromium(folder: Path, *options: str) -> Iterator[Page]:
    """A browser with an empty profile in `folder`; it reads commands from its descriptor 3, and answers on 4."""
    commands, answers = os.pipe(), os.pipe()
    browser = shlex.join([str(CHROMIUM), *OPTIONS, *options, f"--user-data-dir={folder / 'profile'}", "about:blank"])
    process = subprocess.Popen(
        ["bash", "-c", f"exec {browser} 3<&{commands[0]} 4>&{answers[1]}"],
        pass_fds=(commands[0], answers[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder)},
    )
    os.close(commands[0])
    os.close(answers[1])
    try:
        with open(commands[1], "wb", buffering=0) as to, open(answers[0], "rb", buffering=0) as back:
            yield Page(to, back)
    finally:
        process.terminate()
        process.wait(timeout=30)
