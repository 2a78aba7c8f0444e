"""The demonstration as a whole, with a shorter conversation."""

import asyncio
import io
import os
import random
import re
import signal
import sys
from pathlib import Path

import pytest

from handlehome.bench import demo, speech
from handlehome.bench.demo_screen import Screen
from handlehome.bench.demo_script import Line
from handlehome.bench.speech import Recording, Role
from handlehome.codecs import wav


def line(role: Role, text: str, seconds: float, cut_after: float | None = None) -> Line:
    """Loud noise, dull as speech is: no moment of it is like another."""
    ulaw = b"".join(bytes([code]) * 16 for code in random.Random(text).randbytes(round(seconds * 500)))
    return Line(Recording(text, role, text, ulaw), cut_after)


CONVERSATION = (
    line("assistant", "Bonjour.", 0.5),
    Line(speech.load("caller-heating"), untranscribed=True),
    line("assistant", " ".join(f"mot{number}" for number in range(30)), 3.0, cut_after=0.6),
    line("caller", "Attendez !", 0.5),
    line("assistant", "Au revoir.", 0.5),
)


async def test_a_call_goes_through(tmp_path: Path) -> None:
    out = io.StringIO()
    passed = await demo.run_demo(tmp_path, Screen(out), CONVERSATION, interruptions=3)
    shown = out.getvalue()
    assert passed, shown
    for part in ("Simulated OpenAI", "The call", "cuts in", "The stored record", "Added latency", "Checks"):
        assert part in shown
    positions = [shown.index(one.text[:8]) for one in CONVERSATION if not one.untranscribed]
    positions += [shown.index("Transcribed from the kept audio"), shown.index("The customer's data in it")]
    assert positions == sorted(positions)
    assert re.search(r"last name +Durand +turn 2", shown)
    assert re.search(r"phone +\+33465710042 +\(the number that called\)", shown)
    assert re.search(r"✔ transcribed after it +turn 2, “Bonjour, ici Paul Durand", shown)
    uplink, downlink, barge_in = re.findall(r"^(?:Uplink|Downlink|Barge-in) .*? (\d+) .*ms$", shown, re.M)
    assert int(uplink) > 100
    assert int(downlink) > 5
    assert int(barge_in) == 4
    for name in ("call.wav", "recording.wav", "caller.wav", "assistant.wav", "console.log", "data", "logs"):
        assert (tmp_path / name).exists()
    heard = wav.read_line((tmp_path / "assistant.wav").read_bytes())
    assert CONVERSATION[0].recording.ulaw in heard


async def test_a_daemon_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    out = io.StringIO()
    assert not await demo.run_demo(tmp_path, Screen(out), CONVERSATION)
    assert "DATA_DIR" in out.getvalue()


async def test_an_assistant_that_hangs_up_after_its_greeting_fails_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = demo.demo_script.model_script(CONVERSATION[:1])
    monkeypatch.setattr(demo.demo_script, "model_script", lambda _lines: silent)
    monkeypatch.setattr(demo.demo_script, "ANSWER_SECONDS", 1.0)
    out = io.StringIO()
    assert not await demo.run_demo(tmp_path, Screen(out), CONVERSATION, interruptions=0)
    assert re.search(r"✘ conversation +expected: ", out.getvalue())
    assert "did not go through" in out.getvalue()


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_stops_everything(tmp_path: Path, signum: signal.Signals, status: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from handlehome.bench.demo import main; raise SystemExit(main())",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    daemon = 0
    async with asyncio.timeout(30):
        async for shown in process.stdout:
            found = re.search(r"process (\d+)", shown.decode())
            daemon = int(found[1]) if found else daemon
            if "The media stream is open" in shown.decode():
                break
        process.send_signal(signum)
        await process.stdout.read()
        assert await process.wait() == status
    assert daemon
    with pytest.raises(ProcessLookupError):
        os.kill(daemon, 0)
