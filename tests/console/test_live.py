"""The feed: one look for all viewers, each of whom is sent what has changed, at its own pace."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from fs_common.errors import Code, EmberError
from fs_common.release import RELEASE
from fs_meta.http.history import Piece
from fs_meta.http.live import Live
from fs_meta.http.observing import Observation, Observer
from fs_meta.http.viewers import VIEWERS_MAX, Viewers, holder_of
from tests.console.played import observation


class PlayedHistory:
    def __init__(self) -> None:
        self.taken = 0

    def since(self, number: int) -> Piece:
        numbers = range(max(number, 0), self.taken)
        return Piece(max(number, 0), [float(n) for n in numbers], {"reads": [float(n) for n in numbers]})


class PlayedObserver:
    """Looks that the test hands out."""

    def __init__(self) -> None:
        self.looks: asyncio.Queue[Observation | EmberError] = asyncio.Queue()
        self.asked: list[tuple[int, int]] = []
        self.history = PlayedHistory()

    async def look(self, *, known_version: int, known_taken: int) -> Observation:
        self.asked.append((known_version, known_taken))
        look = await self.looks.get()
        if isinstance(look, EmberError):
            raise look
        return look

    def show(self, seen: Observation, *, samples: int = 0) -> None:
        self.history.taken += samples
        self.looks.put_nowait(seen._replace(samples=self.history.since(self.history.taken - 20)))


async def ask(make: Callable[[], Any], timeout_s: float | None = None) -> Any:
    made = make()
    return await made if isinstance(made, Awaitable) else made


def live_of(observer: PlayedObserver, **named: Any) -> Live:
    return Live(cast(Observer, observer), ask, **named)


class Viewer:
    def __init__(self, live: Live, holder: str = "ada", **named: bool) -> None:
        self.feed: AsyncIterator[bytes] = live.feed(holder, **named)

    async def event(self) -> tuple[str, Any]:
        async with asyncio.timeout(10):
            part = await anext(self.feed)
        name, data, *rest = part.decode().split("\n")
        assert name.startswith("event: ") and data.startswith("data: ") and rest == ["", ""]
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def until(self, last: str) -> dict[str, Any]:
        found = {}
        while last not in found:
            name, value = await self.event()
            found[name] = value
        return found

    async def close(self) -> None:
        await cast(Any, self.feed).aclose()


def test_a_viewer_is_sent_everything_at_first_and_then_what_has_changed() -> None:
    async def body() -> None:
        observer = PlayedObserver()
        viewer = Viewer(live_of(observer))
        assert (await viewer.event())[0] == "hello"
        observer.show(observation(), samples=3)
        first = await viewer.until("samples")
        assert set(first) == {"cluster", "nodes", "moves", "clients", "operations", "slow", "chains", "samples"}
        assert first["chains"]["whole"] and len(first["chains"]["chains"]) == 3
        assert first["samples"]["first"] == 0 and first["samples"]["series"] == {"reads": [0, 1, 2]}

        observer.show(observation(failed=frozenset((2,)), version=8), samples=2)
        second = await viewer.until("samples")
        assert "operations" not in second and "moves" not in second and "clients" not in second
        assert second["cluster"]["health"] == "degraded"
        assert not second["chains"]["whole"] and len(second["chains"]["chains"]) == 3
        assert second["samples"]["first"] == 3 and second["samples"]["series"] == {"reads": [3, 4]}

        observer.show(observation(chains=2, failed=frozenset((2,)), version=9))
        third = await viewer.until("chains")
        assert third["chains"] == {"whole": False, "gone": [3], "chains": []}
        await viewer.close()

    asyncio.run(body())


def test_all_viewers_share_one_look_and_none_is_taken_for_nobody() -> None:
    async def body() -> None:
        observer = PlayedObserver()
        live = live_of(observer)
        first, second = Viewer(live), Viewer(live)
        assert not observer.asked
        for viewer in (first, second):
            await viewer.event()
        observer.show(observation(), samples=1)
        for viewer in (first, second):
            await viewer.until("samples")
        assert observer.asked == [(-1, -1), (7, 1)]
        await first.close()
        await second.close()
        await asyncio.sleep(0)
        observer.show(observation(version=9))
        third = Viewer(live)
        await third.event()
        await third.until("chains")
        assert observer.asked[2:] == [(-1, -1), (9, 1)], "the look that was under way went with its viewers"
        await third.close()

    asyncio.run(body())


def test_a_viewer_that_is_far_behind_asks_for_the_samples_that_it_lacks() -> None:
    async def body() -> None:
        observer = PlayedObserver()
        viewer = Viewer(live_of(observer))
        await viewer.event()
        observer.show(observation(), samples=1)
        await viewer.until("samples")
        observer.show(observation(), samples=50)
        assert len((await viewer.until("samples"))["samples"]["age_s"]) == 50
        await viewer.close()

    asyncio.run(body())


def test_a_look_that_fails_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs_meta.http.live.AGAIN_S", 0.0)

    async def body() -> None:
        observer = PlayedObserver()
        viewer = Viewer(live_of(observer))
        await viewer.event()
        observer.looks.put_nowait(EmberError(Code.TIMED_OUT))
        observer.show(observation())
        assert "cluster" in await viewer.until("cluster")
        await viewer.close()

    asyncio.run(body())


def test_a_feed_ends_by_itself_so_that_the_next_one_shows_its_token_again() -> None:
    async def body() -> None:
        observer = PlayedObserver()
        live = live_of(observer, feed_s=0.0)
        assert [part async for part in live.feed("ada")] == [
            b'event: hello\ndata: {"release":"%s"}\n\n' % RELEASE.encode()
        ]
        assert live._following is None

    asyncio.run(body())


def test_what_others_work_with_is_told_to_administrators_alone() -> None:
    async def body() -> None:
        observer = PlayedObserver()
        viewer = Viewer(live_of(observer), administrator=False)
        await viewer.event()
        observer.show(observation(slow=2), samples=1)
        assert "slow" not in await viewer.until("samples")
        await viewer.close()

    asyncio.run(body())


def test_the_feed_of_a_token_that_was_revoked_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs_meta.http.live.CHECK_S", 0.0)

    async def body() -> None:
        observer = PlayedObserver()
        live = live_of(observer)
        answers = iter((True, True, False))

        async def known() -> bool:
            return next(answers)

        parts = [part async for part in live.feed("ada", known=known)]
        assert len(parts) == 1 and next(answers, None) is None
        assert live._following is None

    asyncio.run(body())


def test_nobody_has_all_places_and_who_has_the_most_makes_room() -> None:
    async def body() -> None:
        live = live_of(PlayedObserver())

        async def look(holder: str) -> Viewer:
            viewer = Viewer(live, holder)
            assert (await viewer.event())[0] == "hello"
            return viewer

        greedy = {holder: [await look(holder) for _ in range(8)] for holder in ("ada", "bob", "cyd", "dan")}
        for holder in greedy:
            with pytest.raises(EmberError) as refused:
                await look(holder)
            assert refused.value.code is Code.BUSY and holder in str(refused.value)

        others = [await look("eve"), await look("eve")]
        for holder in ("ada", "bob"):
            with pytest.raises(StopAsyncIteration):
                await greedy[holder][0].event()
        others += [await look(f"user {number}") for number in range(22)]
        for viewers in greedy.values():
            for viewer in viewers[:6]:
                with pytest.raises(StopAsyncIteration):
                    await viewer.event()
        assert len(live._viewers) == len(others) + 2 * len(greedy), "the others are there"
        others += [await look("the last one")]
        for viewer in [*others, *(viewer for viewers in greedy.values() for viewer in viewers)]:
            await viewer.close()
        assert live._following is None
        await (await look("ada")).close()

    asyncio.run(body())


def test_those_who_are_as_many_as_there_are_places_keep_theirs() -> None:
    viewers = Viewers(lambda: None)
    places = [viewers.enter(f"user {number}") for number in range(VIEWERS_MAX)]
    with pytest.raises(EmberError, match="close one of its pages"):
        viewers.enter("one more")
    viewers.leave(places[0])
    viewers.enter("one more")
    assert not any(place.over for place in places)


def test_where_nobody_says_who_he_is_an_address_stands_for_him() -> None:
    assert holder_of("ada", "10.0.0.1") == holder_of("ada", "10.0.0.2") != holder_of("bob", "10.0.0.1")
    assert holder_of(None, "10.0.0.1") == holder_of(None, "::ffff:10.0.0.1") != holder_of(None, "10.0.0.2")
    assert holder_of(None, "fd00::1") == holder_of(None, "fd00::2") != holder_of(None, "fd00:0:0:1::1")
    assert holder_of(None, "") == ""
