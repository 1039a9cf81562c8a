"""Tasks that run for as long as their process: none of them dies silently."""

import asyncio
import logging

import pytest

from fs_common import endless
from fs_common.endless import keep
from tests.support import run


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endless, "PAUSE_S_MIN", 0.0)


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(record.exc_info[1]) for record in caplog.records if record.exc_info]


@pytest.mark.usefixtures("at_once")
def test_it_goes_on_and_each_error_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        errors: list[Exception] = [KeyError("a"), KeyError("a"), UnicodeError("b"), UnicodeError("b"), KeyError("a")]
        begun = 0

        async def work() -> None:
            nonlocal begun
            begun += 1
            await asyncio.sleep(0)
            if errors:
                raise errors.pop(0)

        await keep(work, "the work", end_on=())
        assert begun == 6

    run(main())
    assert tracebacks(caplog) == ["'a'", "b", "'a'"]
    assert "the work was ended by a defect and goes on" in caplog.text


@pytest.mark.usefixtures("at_once")
def test_after_a_long_life_the_same_error_is_told_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endless, "WELL_S", 0.0)

    async def main() -> None:
        left = 3

        async def work() -> None:
            nonlocal left
            left -= 1
            if left:
                raise OSError("again")

        await keep(work, "the work", end_on=())

    run(main())
    assert tracebacks(caplog) == ["again", "again"]


def test_an_error_after_which_nothing_can_be_trusted_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        told: list[Exception] = []

        async def work() -> None:
            raise AssertionError("impossible")

        await keep(work, "the work", end_on=(AssertionError,), end=told.append)
        assert list(map(str, told)) == ["impossible"]

    run(main())
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL


@pytest.mark.parametrize("when", ["working", "pausing"])
def test_its_owner_ends_it(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endless, "PAUSE_S_MIN", 3600.0)

    async def main() -> None:
        reached = asyncio.Event()

        async def work() -> None:
            reached.set()
            if when == "pausing":
                raise OSError("now there is a pause")
            await asyncio.Event().wait()

        task = keep(work, "the work", end_on=())
        await reached.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())


def test_what_ends_its_work_ends_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endless, "PAUSE_S_MIN", 3600.0)

    async def main() -> None:
        stop = asyncio.Event()
        begun = 0

        async def work() -> None:
            nonlocal begun
            begun += 1
            raise OSError("now there is a pause")

        task = keep(work, "the work", end_on=(), stop=stop)
        while not begun:
            await asyncio.sleep(0)
        stop.set()
        await task
        assert begun == 1

    run(main())
