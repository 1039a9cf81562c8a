"""The console, served over HTTP with a cluster that is played: `python -m tests.console.stage large` shows one.

What the page asks of the REST administration, a played one answers. With `token` requests without it are refused.
"""

import argparse
import asyncio
import contextlib
import math
import random
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from fs_meta.http import console, live, problems
from fs_meta.http.history import Piece
from fs_meta.http.live import Live
from fs_meta.http.observing import INTERVAL_S, SAMPLES_MAX, SAMPLES_SHOWN, Observation, Observer
from tests.console.played import observation

HOSTILE = [
    "plain.txt",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>.txt",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "new\nline\ttab\x1b[31mred",
    "right\u202eto\u202dleft.gpj.exe",
    "zero\u200bwidth\ufeff",
    "日本語 ελληνικά 🔥.bin",
    "%2e%2e%2f..%00",
    "a&path=/other#fragment?query",
    "  spaces  ",
    "\\xff is not a byte",
    "x" * 255,
]
"""Names that a file may have."""


def encoded(name: bytes) -> str:
    return "".join(chr(b) if (chr(b).isalnum() and b < 128) or b in b"_.-~" else f"%{b:02X}" for b in name)


class PlayedHistory:
    def __init__(self, count: int) -> None:
        random_ = random.Random(1)
        self.taken = count
        self.now_s = 10_000.0
        names = ("read_bytes", "write_bytes", "reads", "writes", "looks", "changes", "refusals", "storage_errors")
        self._waves = {
            name: (random_.uniform(20, 300), random_.uniform(1, 5), 10.0 ** (8 if "bytes" in name else 3) / (n + 1))
            for n, name in enumerate(names)
        }

    def value(self, name: str, number: int) -> float | None:
        if 400 < number < 430 or number == 0:
            return None
        period, power, size = self._waves[name]
        noise = random.Random(number * 31 + len(name)).uniform(0.6, 1.4)
        return size * noise * (1 + math.sin(number / period)) ** power / 2**power

    def since(self, number: int) -> Piece:
        first = max(number, self.taken - SAMPLES_MAX, 0)
        numbers = range(first, self.taken)
        series: dict[str, list[float | None]] = {name: [self.value(name, n) for n in numbers] for name in self._waves}
        series["used_bytes"] = [3e11 + n * 4e7 for n in numbers]
        series["capacity_bytes"] = [6.2e11 for _ in numbers]
        series["resync_bytes"] = [0.0 if n % 300 < 200 else 5e7 for n in numbers]
        series["clients"] = [2.0 + n // 100 % 5 for n in numbers]
        series["inodes"] = [1e6 + n for n in numbers]
        return Piece(first, [self.now_s - (self.taken - 1 - n) * INTERVAL_S for n in numbers], series)


class PlayedObserver:
    """Shows what `scene` is, again and again."""

    def __init__(self, scene: Observation, samples: int) -> None:
        self.scene = scene
        self.history = PlayedHistory(samples)
        self.looks = 0

    async def look(self, *, known_version: int, known_taken: int) -> Observation:
        if known_version != -1:
            await asyncio.sleep(0.5)
        self.looks += 1
        if known_version != -1 and self.looks % 6 == 0 and self.history.taken:
            self.history.taken += 1
            self.history.now_s += INTERVAL_S
        return self.scene._replace(
            now_s=self.history.now_s, samples=self.history.since(self.history.taken - SAMPLES_SHOWN)
        )


def scene(name: str) -> tuple[Observation, int]:
    match name:
        case "empty":
            return observation(nodes=0, chains=0, clients=0), 0
        case "healthy":
            return observation(), 1200
        case "degraded":
            return observation(6, 8, failed=frozenset((2,)), syncing=frozenset((5,)), moves=3, clients=9, slow=7), 900
        case "offline":
            return observation(3, 3, failed=frozenset((1, 2, 3))), 50
        case "large":
            failed, syncing = frozenset((7, 90)), frozenset((33,))
            return observation(200, 2000, failed=failed, syncing=syncing, moves=40, clients=400), 1200
    raise ValueError(f"{name} is none of empty, healthy, degraded, offline, large")


def application(seen: Observation, samples: int, *, token: str = "") -> FastAPI:
    app = FastAPI(openapi_url=None)
    observer = PlayedObserver(seen, samples)

    async def ask(make: Callable[[], Any], timeout_s: float | None = None) -> Any:
        made = make()
        return await made if isinstance(made, Awaitable) else made

    app.state.observer = observer
    app.state.live = Live(cast(Observer, observer), ask)
    problems.install(app)

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if token and request.url.path.startswith("/api/") and request.headers.get("authorization") != f"Bearer {token}":
            return JSONResponse({"detail": "nobody knows this token"}, 401)
        return await answer(request)

    async def show_live(request: Request) -> Any:
        return await live.live(request, cast(Any, None), None)

    app.add_api_route("/api/v1/live", show_live)
    app.add_api_route("/api/v1/files", _files)
    app.add_api_route("/api/v1/layout", _layout)
    app.include_router(console.make_router())
    return app


def _raw(request: Request, name: str) -> str:
    for part in request.scope["query_string"].decode("latin-1").split("&"):
        key, _, value = part.partition("=")
        if key == name:
            return str(value)
    return ""


def _inode(kind: str, length: int, inode: int = 5) -> dict[str, Any]:
    return {
        "inode": inode,
        "type": kind,
        "mode": "0644",
        "uid": 1000,
        "gid": 1000,
        "links": 1,
        "length": length,
        "accessed": "2026-01-02T03:04:05.000000006Z",
        "modified": "2026-01-02T03:04:05.000000006Z",
        "changed": "2026-01-02T03:04:05.000000006Z",
        "made": "2026-01-02T03:04:05.000000006Z",
        "target": "/etc/<b>" if kind == "symlink" else None,
        "sparse": False,
        "layout": {"chunk_size_bytes": 1 << 20, "stripe": 3, "durability": "disk"},
    }


async def _files(request: Request) -> Response:
    path = _raw(request, "path")
    if path.rstrip("/").count("/") > 1 or path.endswith(".txt"):
        return JSONResponse({"path": path, "attributes": _inode("file", 37_000_000), "entries": None, "next": None})
    names = [b"datasets", b"checkpoints", *(name.encode() for name in HOSTILE), b"raw-\xff\xfe.bin", b"link"]
    first = int(_raw(request, "after") or 0)
    entries = []
    for number, name in enumerate(names):
        kind = "directory" if number < 2 and path == "/" else "symlink" if name == b"link" else "file"
        entries.append(
            {
                "name": name.decode("utf-8", "backslashreplace"),
                "href": f"/api/v1/files?path={path.rstrip('/')}/{encoded(name)}",
                "type": kind,
                "inode": 100 + number,
                "attributes": _inode(kind, 12_345_678 * number, 100 + number),
            }
        )
    page = entries[first : first + 12]
    following = str(first + 12) if first + 12 < len(entries) else None
    return JSONResponse({"path": path, "attributes": _inode("directory", 0), "entries": page, "next": following})


async def _layout(request: Request) -> Response:
    first, total = int(_raw(request, "first") or 0), 300
    end = min(first + int(_raw(request, "limit") or 100), total)
    chains = [
        {
            "chain": chain,
            "version": 3,
            "targets": [
                {
                    "target": 100 * node + chain,
                    "node": node,
                    "address": f"192.0.2.{node}:9710",
                    "state": "syncing" if node == 3 and chain == 2 else "serving",
                }
                for node in (1, 2, 3)
            ],
        }
        for chain in (1, 2, 3)
    ]
    chunks = [{"chunk": n, "offset": n << 20, "length": 1 << 20, "chain": 1 + n % 3} for n in range(first, end)]
    return JSONResponse(
        {
            "path": _raw(request, "path"),
            "inode": 5,
            "length": total << 20,
            "layout": _inode("file", 0)["layout"],
            "chunks_total": total,
            "routing_version": 9,
            "chains": chains,
            "chunks": chunks,
            "next": end if end < total else None,
        }
    )


class Stage:
    """A server in a thread. `url` is where it is."""

    def __init__(self, seen: Observation, samples: int, *, token: str = "", port: int = 0) -> None:
        self.app = application(seen, samples, token=token)
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(self.app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="stage")
        self._thread.start()

    def play(self, seen: Observation) -> None:
        """Another scene, at the next look."""
        self.app.state.observer.scene = seen

    def close(self) -> None:
        """More than once does nothing."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", nargs="?", default="healthy")
    parser.add_argument("--port", type=int, default=9799)
    parser.add_argument("--token", default="")
    options = parser.parse_args()
    seen, samples = scene(options.scene)
    stage = Stage(seen, samples, token=options.token, port=options.port)
    print(stage.url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    stage.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
