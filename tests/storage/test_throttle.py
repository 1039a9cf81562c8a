"""How fast replicas are filled up."""

import asyncio

from fs_storage.throttle import AT_ONCE, REST_S_MAX, SERVING_S, SHARE, Pace, Throttle, rest_s
from tests.storage.engine.virtual_loop import run_virtual


def test_clients_are_served_for_a_moment_after_each_request() -> None:
    pace = Pace(0)
    assert not pace.serving(10.0, 5), "what came before anybody looked says nothing"
    assert not pace.serving(11.0, 5)
    assert pace.serving(12.0, 6)
    assert pace.serving(12.0 + SERVING_S / 2, 6)
    assert not pace.serving(12.0 + SERVING_S, 6)
    assert pace.serving(20.0, 7)


def test_a_bound_lets_bytes_pass_at_its_rate_and_saves_nothing_up() -> None:
    pace = Pace(1000)
    assert pace.reserve(10.0, 500) == 0.0
    assert pace.reserve(10.0, 2000) == 0.5
    assert pace.reserve(11.0, 1) == 1.5
    assert pace.reserve(100.0, 5000) == 0.0, "a pause is no credit"
    assert pace.reserve(100.0, 1) == 5.0
    assert Pace(0).reserve(10.0, 1 << 40) == 0.0


def test_a_rest_leaves_the_agreed_share() -> None:
    assert rest_s(0.01) / (rest_s(0.01) + 0.01) == 1 - SHARE
    assert rest_s(60.0) == REST_S_MAX


def most_at_once(requests: list[int], *, elsewhere: bool = False) -> tuple[int, float]:
    """Of ten pieces of 10 ms that all want their turn now: how many ran side by side, and how long it took."""
    running = most = 0

    async def story() -> float:
        nonlocal running, most
        loop = asyncio.get_running_loop()

        def count() -> int:
            requests[0] += requests[1]
            return requests[0]

        throttle = Throttle(0, count)

        async def piece() -> None:
            nonlocal running, most
            async with throttle.turn(100, elsewhere=elsewhere):
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.01)
                running -= 1

        async with throttle.turn(0):
            pass
        begin = loop.time()
        await asyncio.gather(*(piece() for _ in range(10)))
        return loop.time() - begin

    took: list[float] = []

    async def body() -> None:
        took.append(await story())

    run_virtual(body())
    return most, took[0]


def test_pieces_run_side_by_side_while_nobody_is_served() -> None:
    most, took_s = most_at_once([0, 0])
    assert most == AT_ONCE and took_s < 0.04


def test_one_piece_runs_at_a_time_and_rests_while_clients_are_served() -> None:
    most, took_s = most_at_once([0, 1])
    assert most == 1
    assert 10 * 0.01 / SHARE - 0.1 <= took_s < 10 * 0.01 / SHARE + 0.1


def test_clients_of_the_other_side_are_not_held_up_either() -> None:
    most, took_s = most_at_once([0, 0], elsewhere=True)
    assert most == 1
    assert 10 * 0.01 / SHARE - 0.1 <= took_s < 10 * 0.01 / SHARE + 0.1
