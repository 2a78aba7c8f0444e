"""A call from a script of recordings."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from handlehome.bench import speech, wav
from handlehome.bench.simulate import simulate_call
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
    said.write_bytes(wav.ulaw_wav(b"c" * 1600))
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
