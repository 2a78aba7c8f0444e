"""The simulated network's delays."""

from __future__ import annotations

import asyncio
import random
import time

from handlehome.bench.network import Pipe


async def test_without_delay_things_arrive_within_the_call() -> None:
    pipe = Pipe((0, 0), random.Random(1))
    arrived: list[int] = []
    pipe.push(lambda: arrived.append(1))
    assert arrived == [1]


async def test_delays_stay_in_their_range_and_keep_the_order() -> None:
    pipe = Pipe((5, 20), random.Random(1))
    delays: list[float] = []
    order: list[int] = []
    done = asyncio.Event()

    def arrive(number: int, sent: float) -> None:
        delays.append(time.monotonic() - sent)
        order.append(number)
        if number == 99:
            done.set()

    for number in range(100):
        sent = time.monotonic()
        pipe.push(lambda number=number, sent=sent: arrive(number, sent))
        if number % 10 == 0:
            await asyncio.sleep(0.001)
    async with asyncio.timeout(5):
        await done.wait()
    assert order == list(range(100))
    assert min(delays) >= 0.005
    assert sorted(delays)[50] < 0.05


async def test_what_is_pushed_on_arrival_queues_behind() -> None:
    pipe = Pipe((2, 2), random.Random(1))
    order: list[str] = []
    done = asyncio.Event()

    def first() -> None:
        order.append("first")
        pipe.push(lambda: (order.append("third"), done.set()))

    pipe.push(first)
    pipe.push(lambda: order.append("second"))
    async with asyncio.timeout(5):
        await done.wait()
    assert order == ["first", "second", "third"]


async def test_held_things_arrive_together_after_the_hold() -> None:
    pipe = Pipe((0, 0), random.Random(1))
    times: list[float] = []
    began = time.monotonic()
    done = asyncio.Event()
    pipe.hold(0.05)
    for _ in range(3):
        pipe.push(lambda: times.append(time.monotonic()))
    pipe.push(done.set)
    async with asyncio.timeout(5):
        await done.wait()
    assert times[0] - began >= 0.05
    assert times[2] - times[0] < 0.05
    pipe.push(lambda: times.append(0.0))
    assert times[-1] == 0.0


async def test_discarded_things_never_arrive() -> None:
    pipe = Pipe((1, 1), random.Random(1))
    arrived: list[int] = []
    pipe.push(lambda: arrived.append(1))
    pipe.discard()
    later = asyncio.Event()
    pipe.push(later.set)
    async with asyncio.timeout(5):
        await later.wait()
    assert arrived == []
