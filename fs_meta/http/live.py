"""The console's live feed: `GET /api/v1/live`, server-sent events of what `shown` makes of the cluster.

However many people look, the cluster is looked at once: a task takes one observation after another while there is a
viewer, and each viewer is sent, at its own pace, what has changed since it was sent something. A slow one gets fewer
and larger changes, and costs no memory.

A viewer's token is looked at again every `CHECK_S`: with one that was revoked or has expired the feed ends, and the
page, which opens another one, is asked for a token. A feed ends by itself after `FEED_S`: none goes on for ever. How
many there are, and how many of them one viewer has, is bounded (`viewers`).

Runs on the HTTP thread's loop. Task: `_follow`, from the first viewer to the last. Page: docs/concurrency/http.md.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from typing import Any, Final, Protocol, TypeVar

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from fs_common.endless import keep
from fs_common.errors import Code, EmberError
from fs_common.release import RELEASE
from fs_meta.http.callers import Reader, TheBackend
from fs_meta.http.history import Piece
from fs_meta.http.observing import Observation, Observer
from fs_meta.http.shown import events_of, piece_of
from fs_meta.http.viewers import Viewers, holder_of

T = TypeVar("T")

FEED_S: Final = 300.0
CHECK_S: Final = 3.0
AGAIN_S: Final = 1.0
"""Pause after a look that failed."""
GONE_MAX: Final = 10_000
"""Chains that are gone and remembered as such. Beyond it viewers are told of all chains anew."""
FOR_ADMINISTRATORS: Final = frozenset(("slow",))
"""Events that say what others work with."""
_encode = msgspec.json.Encoder().encode


class Ask(Protocol):
    """The bridge to the service's loop (`fs_common.http_server.LoopBridge.call`)."""

    async def __call__(self, make: Callable[[], Awaitable[T] | T], timeout_s: float | None = None) -> T: ...


class Live:
    """The feed of one metadata server."""

    def __init__(
        self, observer: Observer, ask: Ask, *, clock: Callable[[], float] = time.monotonic, feed_s: float = FEED_S
    ) -> None:
        """`ask`: how `observer` is reached."""
        self._observer = observer
        self._ask = ask
        self._clock = clock
        self._feed_s = feed_s
        self._viewers = Viewers(self._wake)
        self._number = 0
        """Of the newest look; every event has the number of the look in which it changed."""
        self._events: dict[str, tuple[int, bytes]] = {}
        self._chains: dict[int, tuple[int, bytes]] = {}
        self._gone: dict[int, int] = {}
        self._whole_from = 0
        """Viewers that have seen only what is older than this look are told of all chains anew."""
        self._samples: tuple[Piece, float] | None = None
        """The newest ones, and when that was."""
        self._news = asyncio.Event()
        """Set, and replaced, when there is a new look."""
        self._following: tuple[asyncio.Task[None], asyncio.Event] | None = None

    async def feed(
        self, holder: str, *, administrator: bool = True, known: Callable[[], Awaitable[bool]] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """What one viewer, one of `holder`, is sent, until it goes, `FEED_S` are over, its place is somebody else's, or
        `known()`, who it is, is not true any more. Raises BUSY, before anything."""
        hidden = () if administrator else FOR_ADMINISTRATORS
        place = self._viewers.enter(holder)
        try:
            self._begin()
            until_s = self._clock() + self._feed_s
            yield _event("hello", _encode({"release": RELEASE}))
            seen, samples_from = 0, 0
            checked_s = self._clock()
            while self._clock() < until_s and not place.over:
                if known is not None and self._clock() >= checked_s + CHECK_S:
                    if not await known():
                        return
                    checked_s = self._clock()
                news = self._news
                if self._number > seen and self._samples is not None:
                    number = self._number
                    for part in self._since(seen, hidden):
                        yield part
                    samples, samples_from = await self._samples_from(samples_from)
                    if samples:
                        yield samples
                    seen = number
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(CHECK_S, until_s - self._clock())):
                        await news.wait()
        finally:
            self._viewers.leave(place)
            self._end()

    def _since(self, seen: int, hidden: Collection[str]) -> list[bytes]:
        parts = [
            _event(name, data) for name, (number, data) in self._events.items() if number > seen and name not in hidden
        ]
        whole = seen < self._whole_from or not seen
        changed = [data for number, data in self._chains.values() if whole or number > seen]
        gone = [] if whole else [chain for chain, number in self._gone.items() if number > seen]
        if changed or gone or whole:
            start = b'{"whole":' + (b"true" if whole else b"false")
            parts.append(
                _event("chains", start + b',"gone":' + _encode(gone) + b',"chains":[' + b",".join(changed) + b"]}")
            )
        return parts

    async def _samples_from(self, first: int) -> tuple[bytes, int]:
        """The event with the samples from that number on, and the number that comes next."""
        if self._samples is None:
            return b"", first
        piece, now_s = self._samples
        if piece.first > first:
            with contextlib.suppress(EmberError):
                piece = await self._ask(lambda: self._observer.history.since(first))
        skipped = max(first - piece.first, 0)
        if skipped:
            series = {name: values[skipped:] for name, values in piece.series.items()}
            piece = Piece(piece.first + skipped, piece.at_s[skipped:], series)
        if not piece.at_s:
            return b"", first
        return _event("samples", _encode(piece_of(piece, now_s))), piece.first + len(piece.at_s)

    # -- the look that all share -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._following is None:
            stop = asyncio.Event()
            self._following = keep(lambda: self._follow(stop), "console: look", end_on=(), stop=stop), stop

    def _end(self) -> None:
        if not self._viewers and self._following is not None:
            task, stop = self._following
            self._following = None
            stop.set()
            task.cancel()
            # The next viewer must not take what was then for what is now.
            self._events.clear()
            self._chains.clear()
            self._gone.clear()
            self._samples = None

    async def _follow(self, stop: asyncio.Event) -> None:
        version, taken = -1, -1
        while not stop.is_set():
            try:
                seen = await self._look(version, taken)
            except EmberError as error:
                if error.code is Code.CLOSING:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S):
                        await stop.wait()
                continue
            version = seen.routing.version
            taken = seen.samples.first + len(seen.samples.at_s)
            self.take(seen)

    async def _look(self, version: int, taken: int) -> Observation:
        return await self._ask(lambda: self._observer.look(known_version=version, known_taken=taken))

    def take(self, seen: Observation) -> None:
        """A new look at the cluster: viewers are told what has changed."""
        events: dict[str, Any] = events_of(seen)
        number = self._number + 1
        chains: dict[int, dict[str, Any]] = events.pop("chains")
        for name, value in events.items():
            data = _encode(value)
            if name not in self._events or self._events[name][1] != data:
                self._events[name] = (number, data)
        for chain, value in chains.items():
            data = _encode(value)
            known = self._chains.get(chain)
            if known is None or known[1] != data:
                self._chains[chain] = (number, data)
                self._gone.pop(chain, None)
        for chain in [chain for chain in self._chains if chain not in chains]:
            del self._chains[chain]
            self._gone[chain] = number
        if len(self._gone) > GONE_MAX:
            self._gone.clear()
            self._whole_from = number
        self._samples = (seen.samples, seen.now_s)
        self._number = number
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


router = APIRouter(include_in_schema=False)  # it never ends, and its events are the page's own


@router.get("/live")
async def live(request: Request, backend: TheBackend, caller: Reader) -> StreamingResponse:
    """What changes in the cluster, as server-sent events, while the connection is open; a few minutes at most."""
    feed: Live = request.app.state.live
    text = request.headers.get("authorization", "").partition(" ")[2].strip()

    async def known() -> bool:
        try:
            await backend.look(lambda: backend.users.identify(text))
        except EmberError as error:
            # A server that is busy has said nothing of the token.
            return error.code is not Code.UNAUTHENTICATED
        return True

    host = request.client.host if request.client is not None else ""
    sent = feed.feed(
        holder_of(None if caller is None else caller.name, host),
        administrator=caller is None or caller.admin,
        known=None if caller is None else known,
    )
    # Before the response has begun, so that who is refused gets a problem.
    first = await anext(sent)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_whole(first, sent), media_type="text/event-stream", headers=headers)


async def _whole(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(rest):
        yield first
        async for part in rest:
            yield part
