"""A headless Chromium, driven over the DevTools protocol by a websocket."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0",
)  # fmt: skip
PATIENCE_S = 60.0


@dataclass
class Tab:
    """One page of the browser; `events` are all that it told so far."""

    socket: aiohttp.ClientWebSocketResponse
    session: str = ""
    number: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        await self.socket.send_json(message | ({"sessionId": self.session} if self.session else {}))
        while True:
            answer = await self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    async def show(self, path: Path) -> None:
        """Load a file and wait until it has loaded."""
        self.events.clear()
        await self.ask("Page.navigate", url=path.resolve().as_uri())
        while not self.told("Page.loadEventFired"):
            await self._next()

    async def value(self, expression: str) -> Any:
        """Return what an expression comes to in the page."""
        done = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def press(self, key: str) -> None:
        """Press a key and let it go."""
        codes = {"Tab": 9, "Enter": 13}
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                **more,
            )

    def told(self, *methods: str) -> list[dict[str, Any]]:
        """Return the events of these kinds."""
        return [event["params"] for event in self.events if event["method"] in methods]

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = await asyncio.wait_for(self.socket.receive_json(), PATIENCE_S)
        if "method" in message:
            self.events.append(message)
        return message


@asynccontextmanager
async def tab(arguments: Sequence[str] = ()) -> AsyncIterator[Tab]:
    """Start a browser with a profile of its own, and end it."""
    assert PROGRAM is not None
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = await asyncio.create_subprocess_exec(
            PROGRAM, *QUIET, *arguments, f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            url = await asyncio.wait_for(_address(browser), PATIENCE_S)
            async with aiohttp.ClientSession() as client, client.ws_connect(url, max_msg_size=0) as socket:
                yield await _attached(Tab(socket))
        finally:
            browser.kill()
            await browser.communicate()


async def _attached(browser: Tab) -> Tab:
    target = await browser.ask("Target.createTarget", url="about:blank")
    made = await browser.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
    browser.session = made["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        await browser.ask(f"{domain}.enable")
    return browser


async def _address(browser: asyncio.subprocess.Process) -> str:
    """Return the websocket's address, which the browser says on stderr."""
    assert browser.stderr is not None
    while line := await browser.stderr.readline():
        text = line.decode(errors="replace").strip()
        if text.startswith("DevTools listening on "):
            return text.removeprefix("DevTools listening on ")
    raise AssertionError(json.dumps("the browser ended before it listened"))
