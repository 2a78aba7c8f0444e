"""The load and what it measures, with the baseline as the relay."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection, serve

from handlehome.bench.baseline import serving
from handlehome.bench.load import Load, LoadError
from handlehome.bench.loadsocket import HandshakeError
from tests.tiny_relay import Stream, TinyRelay, running


async def test_every_frame_passes_both_ways_once() -> None:
    async with Load(30) as load, serving(load.model_url) as port:
        await load.dial(f"http://127.0.0.1:{port}", webhook=False)
        load.begin_window()
        await asyncio.sleep(0.3)
        window = load.end_window()
        assert await load.settle() == 0
        assert load.ledger.faults == []
        assert load.ledger.totals.disordered == 0
        assert load.ledger.totals.messages_down == load.ledger.totals.played
        assert len(window.up) == window.totals.arrived
        assert len(window.down) == window.totals.played
        assert window.totals.sent == pytest.approx(30 * 50 * window.seconds, abs=60)
        assert min(window.up) > 0
        assert 0 < window.busy <= 1.5
        assert len(load.greeting_ms()) == 30
        await load.hang_up()
    assert not any(end.connected for end in (*load.ledger.phones, *load.ledger.sessions))


async def test_interruptions_are_answered_by_clear() -> None:
    async with Load(3) as load, serving(load.model_url) as port:
        await load.dial(f"http://127.0.0.1:{port}", webhook=False)
        await asyncio.sleep(0.1)
        assert len(await load.barge_in(0.4)) >= 3
        assert load.ledger.faults == []


async def test_a_relay_that_relays_nothing_is_an_error() -> None:
    async def deaf(connection: ServerConnection) -> None:
        async for _ in connection:
            pass

    async with Load(2) as load, serve(deaf, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(LoadError, match="0 of 2 calls"):
            await load.dial(f"http://127.0.0.1:{port}", webhook=False, within=0.2)


async def test_the_webhook_gives_the_stream_its_url_and_parameters() -> None:
    async def listen(stream: Stream) -> None:
        await stream.drain()

    async with running(TinyRelay(listen)) as relay, Load(2, auth_token="12345") as load:
        with pytest.raises(LoadError, match="0 of 2 calls"):
            await load.dial(relay.url, within=1)
        await load.hang_up()
    assert [asked.form["CallStatus"] for asked in relay.of("/incoming-call")] == ["ringing"] * 2
    starts = [stream.messages[1]["start"] for stream in relay.streams]
    assert [start["customParameters"] for start in starts] == [{"token": "t1"}] * 2
    assert len(load.webhook_ms) == 2


async def test_a_call_without_a_stream_is_an_error() -> None:
    async def never(stream: Stream) -> None:
        raise AssertionError

    relay = TinyRelay(never, "<Response><Say>Rappelez.</Say></Response>")
    async with running(relay), Load(1) as load:
        with pytest.raises(LoadError, match="Rappelez"):
            await load.dial(relay.url)
        with pytest.raises(HandshakeError):
            await load.dial(relay.url + "/nowhere", webhook=False)


async def test_the_number_of_calls_is_bounded() -> None:
    for calls in (0, 1000):
        with pytest.raises(ValueError, match="1 to 999"):
            Load(calls)
