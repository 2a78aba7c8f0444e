"""A call from a script of recordings, and the simulated OpenAI beside it."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect

from handlehome.bench import speech
from handlehome.bench.simulate import simulate_call, simulate_openai
from handlehome.codecs import wav
from tests.tiny_relay import Stream, TinyRelay, running


async def greet_and_answer(stream: Stream) -> None:
    await stream.until("start")
    await stream.media(b"g" * 800)
    while (message := await stream.next()) is not None:
        # Answers the end of each utterance: a silent frame after a loud one.
        if stream.heard()[-320:] == b"c" * 160 + b"\xff" * 160 and message["event"] == "media":
            await stream.media(b"a" * 1600)


async def test_the_script_is_spoken_answered_and_recorded(tmp_path: Path) -> None:
    said = tmp_path / "said.wav"
    said.write_bytes(wav.write(b"c" * 1600))
    out = tmp_path / "call.wav"
    lines: list[str] = []
    async with running(TinyRelay(greet_and_answer)) as relay:
        call = await simulate_call(
            relay.url, speak=[said, str(said)], wav_out=out, quiet=0.1, report=lines.append
        )
    assert call.errors == []
    assert call.violations == []
    data = out.read_bytes()
    assert struct.unpack_from("<HH", data, 20) == (7, 2)
    audio = data[data.index(b"data") + 8 :]
    left, right = audio[0::2], audio[1::2]
    assert left.replace(b"\xff", b"") == b"c" * 3200
    assert right.replace(b"\xff", b"") == b"g" * 800 + b"a" * 3200
    told = "\n".join(lines)
    assert told.count("caller: said.wav") == 2
    assert "assistant: 0.1 s of speech" in told
    assert told.endswith(f"wrote {out}")


async def test_a_call_that_the_relay_ends_is_told(tmp_path: Path) -> None:
    lines: list[str] = []
    relay = TinyRelay(lambda stream: stream.until("media", 3))
    relay.ended = iter(["<Response><Say>Rappelez plus tard.</Say></Response>"])
    async with running(relay):
        await simulate_call(
            relay.url, speak=["caller-leak"], wav_out=tmp_path / "call.wav", report=lines.append
        )
    told = "\n".join(lines)
    assert "the call ended before" in told
    assert "Twilio says: Rappelez plus tard." in told


async def test_a_silent_assistant_is_waited_for_only_so_long(tmp_path: Path) -> None:
    lines: list[str] = []
    async with running(TinyRelay(lambda stream: stream.drain())) as relay:
        await simulate_call(
            relay.url, speak=[], wav_out=tmp_path / "call.wav", answer_within=0.05, report=lines.append
        )
    assert any("no 1 bytes heard within" in line for line in lines)


async def test_unknown_recordings_are_refused_before_the_call(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=speech.ids()[0]):
        await simulate_call("http://127.0.0.1:1", speak=["caller-song"], wav_out=tmp_path / "x.wav")


async def test_the_simulated_openai_serves_both_apis() -> None:
    """Each tells its address; the REST models know the recordings, the speech model greets."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    serving = asyncio.ensure_future(simulate_openai("127.0.0.1", 0, 0, api_key="sk-1", log=lines.put_nowait))
    try:
        told = [await asyncio.wait_for(lines.get(), 5) for _ in range(2)]
        rest, realtime = (re.search(r"\S+$", line)[0] for line in told)
        headers = {"Authorization": "Bearer sk-1"}
        async with httpx2.AsyncClient(headers=headers) as http:
            body = {"model": "gpt-5.6-luna", "input": speech.load("caller-leak").text}
            answer = await http.post(f"{rest}/responses", json=body)
            assert '"last_name":"Martin"' in answer.json()["output"][-1]["content"][0]["text"]
            assert (
                await http.get(f"{rest}/models", headers={"Authorization": "Bearer x"})
            ).status_code == 401
        async with connect(f"{realtime}?model=m", additional_headers=headers, proxy=None) as session:
            assert "session.created" in await session.recv()
    finally:
        serving.cancel()
        await asyncio.wait([serving])
    assert await lines.get() == "POST /v1/responses gpt-5.6-luna: 200"


@pytest.mark.parametrize("which", ["port", "rest_port"])
async def test_a_port_in_use_stops_the_simulated_openai(which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"port": 0, "rest_port": 0, which: taken.getsockname()[1]}
        with pytest.raises(OSError, match="in use"):
            await simulate_openai("127.0.0.1", **ports, log=lambda line: None)
