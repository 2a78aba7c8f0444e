"""The demonstration: one call through a real daemon, shown live and judged. What `handlehome demo` does.

    the caller's recordings -> simulated phone line -> daemon (own process) -> simulated OpenAI, and back
    transcript -> simulated OpenAI -> customer's data -> store

The simulators run in this process. The conversation is shown as the daemon has it in its journal, the
customer's data as they are in its store; what the simulators know to be true is compared with both.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from handlehome.bench import demo_latency as latency
from handlehome.bench import demo_record, demo_recording, demo_script
from handlehome.bench.demo_checks import Evidence, check_call
from handlehome.bench.demo_daemon import DaemonError, DemoDaemon, JournalReader, make_folder, running_daemon
from handlehome.bench.demo_screen import Screen
from handlehome.bench.demo_script import Line
from handlehome.bench.demo_story import Aftermath, Story
from handlehome.bench.mouth import CallOverError
from handlehome.bench.phone import PhoneCall
from handlehome.bench.playback import SILENCE
from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Script
from handlehome.bench.realtime.server import RealtimeSimulator
from handlehome.bench.rest import recordings
from handlehome.bench.rest.server import RestSimulator
from handlehome.bench.twilio import WebhookError
from handlehome.bench.twiml import TwimlError
from handlehome.codecs import wav

INTERRUPTIONS = 25
"""Interruptions of a second, short call: the one of the conversation alone has no percentiles."""

AFTER_SECONDS = 20.0
"""By then the data of a call that has ended are in the store."""

REST_SECONDS = (0.3, 0.6)
"""How long the simulated REST API takes; the real one takes longer."""

REFRESH_SECONDS = 0.1
FRAME_BYTES = 160
START_DELAY_SECONDS = 0.15
"""From the stream's connection to its `start`; the real Twilio takes longer."""

CALL_TROUBLES = (WebhookError, TwimlError, CallOverError, TimeoutError, OSError, ValueError)


def main() -> int:
    """Runs the demonstration in this process.

    Returns:
        Exit status: 0 if the call really went through, 1 if not, 130 after Ctrl-C, 143 after SIGTERM.
    """
    screen = Screen()

    async def run() -> bool:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run_demo(make_folder(Path.cwd()), screen)

    try:
        with screen:
            passed = uvloop.run(run())
    except KeyboardInterrupt:
        screen.say("Interrupted; the daemon and the simulators are stopped.", "yellow")
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return 0 if passed else 1


async def run_demo(
    folder: Path,
    screen: Screen,
    lines: Sequence[Line] | None = None,
    *,
    interruptions: int = INTERRUPTIONS,
) -> bool:
    """Makes the call, shows it and judges it.

    Args:
        folder: For all that is written; exists.
        screen: Where it is shown.
        lines: What is said; by default the demonstration's conversation.
        interruptions: How many more are measured, in a second call.

    Returns:
        Whether the call really went through.
    """
    lines = lines or demo_script.conversation()
    evidence = Evidence(lines)
    api_key, auth_token = f"sk-demo-{secrets.token_hex(16)}", secrets.token_hex(16)
    screen.say("HandleHome: one phone call through the real daemon", "bold")
    screen.say("The phone line and OpenAI are simulated on this machine: no account, no key, no cost.", "dim")
    screen.say()

    def script(number: int) -> Script:
        return demo_script.model_script(lines) if number == 0 else demo_script.talkative_script()

    rest = RestSimulator(api_key=api_key, answer=recordings.extract, delay_s=REST_SECONDS)
    async with RealtimeSimulator(script, api_key=api_key) as simulator, rest:
        screen.done("Simulated OpenAI", f"{simulator.url}  and, for after the call, {rest.url}")
        screen.working("Starting the daemon …")
        try:
            async with running_daemon(
                folder, model_url=simulator.url, rest_url=rest.url, api_key=api_key, auth_token=auth_token
            ) as daemon:
                screen.done(
                    "Daemon", f"{daemon.url}  process {daemon.pid}, up in {daemon.start_seconds:.1f} s"
                )
                call = PhoneCall(
                    daemon.url,
                    auth_token=auth_token,
                    from_=demo_script.CALLER_NUMBER,
                    start_delay=START_DELAY_SECONDS,
                )
                async with call:
                    evidence.trouble = await _converse(call, daemon, screen, lines)
                delays: list[float] = []
                if not evidence.trouble and interruptions:
                    screen.working(f"Measuring {interruptions} more interruptions, in a second call …")
                    second = PhoneCall(
                        daemon.url, auth_token=auth_token, from_="+33687654321", keep_audio=False
                    )
                    async with second:
                        delays = await _interrupt(second, simulator, interruptions)
                    if delays:
                        await _settled(daemon, second.call_sid)
                screen.working("Stopping the daemon …")
        except DaemonError as error:
            _not_started(screen, folder, error)
            return False
        session = next(iter(simulator.sessions), None)
    screen.working("")
    _collect(evidence, call, session, daemon)
    evidence.rest_requests = [(request.path, request.status) for request in rest.requests]
    _write_wavs(folder, call, evidence)
    _show_record(screen, evidence)
    _show_latency(screen, evidence, call, session, delays)
    checks = check_call(evidence)
    screen.headline("Checks")
    screen.checks(checks)
    if daemon.exit_status:
        screen.say("The daemon's last words:", "bold red")
        for line in daemon.console()[-12:]:
            screen.say(f"    {line}")
    _show_folder(screen, folder)
    failed = sum(not check.passed for check in checks)
    screen.verdict(failed, len(checks))
    return not failed


# The calls


async def _converse(call: PhoneCall, daemon: DemoDaemon, screen: Screen, lines: Sequence[Line]) -> str:
    """Makes the call and shows it; returns what broke it off, empty if nothing did."""
    story = Story(screen, call.call_sid)
    reader = JournalReader(daemon.data / "journal.sqlite3")
    # The collector's pauses would be measured as the daemon's.
    gc.collect()
    gc.freeze()

    async def watch() -> None:
        while not story.over and daemon.process.returncode is None:
            story.tell(reader.new())
            screen.status(*_status(call))
            await asyncio.sleep(REFRESH_SECONDS)

    watching = asyncio.create_task(watch())
    trouble = ""
    try:
        screen.done("Simulated phone line", f"{call.call_sid} dials")
        screen.headline(f"The call, about {demo_script.seconds(lines):.0f} s")
        if numbers := [str(number) for number, line in enumerate(lines, 1) if line.untranscribed]:
            screen.say(
                f"On purpose, the live transcription of turn {', '.join(numbers)} fails: "
                "its words are had after the call, from the audio that the daemon has kept.",
                "dim",
            )
        try:
            await call.dial()
            await demo_script.converse(call, lines)
        except CALL_TROUBLES as error:
            trouble = str(error) or type(error).__name__
            with contextlib.suppress(*CALL_TROUBLES):
                await call.hang_up()
        with contextlib.suppress(TimeoutError):  # The missing data are noticed as such.
            await asyncio.wait_for(watching, AFTER_SECONDS)
    finally:
        watching.cancel()
        reader.close()
        gc.unfreeze()
    return trouble


def _status(call: PhoneCall) -> tuple[float, bool, float]:
    """What `Screen.status` shows."""
    if not call.live:
        return 0.0, False, 0.0
    leg, now = call.leg, time.monotonic()
    speaking = bytes(leg.sent_ulaw[-FRAME_BYTES:]).strip(SILENCE) != b""
    return now - leg.began, speaking, max(0.0, leg.playback.dry_at - now)


async def _interrupt(call: PhoneCall, simulator: RealtimeSimulator, count: int) -> list[float]:
    """Has a second call interrupted again and again.

    Returns:
        Seconds from each `speech_started` to the `clear` at the line; fewer than `count` when one was not
        acted on.
    """
    try:
        await call.dial()
        session = await simulator.wait_session(1)
        for _ in range(count):
            await call.wait_heard(call.heard_bytes + 480, 5.0)
            session.speech_started()
            await call.wait_quiet(0.02, 5.0)
            session.speech_stopped()
        delays = latency.barge_in(session.sent, call.leg.clears)
        await call.hang_up()
    except CALL_TROUBLES:
        return []
    return delays


async def _settled(daemon: DemoDaemon, call_sid: str) -> None:
    """Waits, bounded, for the record of a call that is not shown, so that the end cuts nothing off."""
    aftermath, deadline = Aftermath(call_sid), time.monotonic() + AFTER_SECONDS
    with contextlib.closing(JournalReader(daemon.data / "journal.sqlite3")) as reader:
        while not aftermath.over and daemon.process.returncode is None and time.monotonic() < deadline:
            aftermath.take(reader.new())
            await asyncio.sleep(REFRESH_SECONDS)


# What became of it


def _collect(evidence: Evidence, call: PhoneCall, session: SimSession | None, daemon: DemoDaemon) -> None:
    evidence.record = demo_record.stored(daemon.data, call.call_sid)
    evidence.events = demo_record.journaled(daemon.data, call.call_sid)
    evidence.kept_audio = demo_record.kept_audio(daemon.data)
    evidence.exit_status = daemon.exit_status
    evidence.line_problems = [f"{error.code} {error.reason}" for error in call.errors]
    evidence.line_problems += [f"{violation.code} {violation.reason}" for violation in call.violations]
    evidence.logged_errors = daemon.errors()
    if session is None:
        evidence.model_problems = ["no session was opened"]
        return
    evidence.model_problems = list(session.violations)
    evidence.truncations = [(item_id, ms, accepted) for _, item_id, ms, accepted in session.truncations]
    evidence.understood = bytes(session.audio)
    if call.legs:
        leg = call.legs[0]
        evidence.spoken = bytes(leg.sent_ulaw)
        evidence.audible = leg.playback.played()
        evidence.items = latency.line_items(
            session.deltas, leg.received, leg.clears, leg.playback.played_bytes
        )


def _write_wavs(folder: Path, call: PhoneCall, evidence: Evidence) -> None:
    spoken, heard = call.spoken(), call.heard()
    (folder / "call.wav").write_bytes(wav.write(spoken, heard))
    (folder / "caller.wav").write_bytes(wav.write(evidence.understood))
    (folder / "assistant.wav").write_bytes(wav.write(heard))
    if evidence.record is None or evidence.record.recording is None:
        return
    with contextlib.suppress(OSError, wav.WavError):  # The missing recording is noticed as such.
        recording = (folder / "data" / "recordings" / evidence.record.recording).read_bytes()
        (folder / "recording.wav").write_bytes(recording)
        evidence.recording = demo_recording.compare(recording, spoken, heard)


# Showing it


def _show_record(screen: Screen, evidence: Evidence) -> None:
    screen.headline("The stored record")
    if evidence.record is None:
        screen.say("There is none.", "bold red")
        return
    screen.record(evidence.record)
    screen.headline("The customer's data in it")
    screen.data(demo_record.rows(evidence.record))
    turn = evidence.interrupted
    item = evidence.item(turn.id) if turn else None
    if turn is None or item is None:
        return
    screen.headline("What was heard of the interrupted answer")
    share = item.played / item.generated
    told = next((ms for item_id, ms, _ in evidence.truncations if item_id == turn.id), None)
    screen.comparison(
        [
            (
                "The line played (the truth)",
                f"{item.played_ms:.0f} ms",
                latency.words_heard(turn.text or "", share),
            ),
            ("The record says", f"{turn.heard_ms or 0:.0f} ms", turn.heard_text or ""),
            ("The model was told", "nothing" if told is None else f"{told} ms", ""),
        ]
    )
    screen.say(
        f"Of the answer's {item.generated_ms:.0f} ms, {item.received / 8:.0f} ms had been sent to the line; "
        "`clear` took back what was not yet played.",
        "dim",
    )


def _show_latency(
    screen: Screen, evidence: Evidence, call: PhoneCall, session: SimSession | None, delays: list[float]
) -> None:
    if session is None or not call.legs:
        return
    leg = call.legs[0]
    up = latency.uplink(leg.sent_at, FRAME_BYTES, session.append_times, session.append_sizes)
    down, held = latency.downlink(session.deltas, evidence.items, leg.received)
    barge_in = latency.barge_in(session.sent, leg.clears) + delays
    screen.headline("Added latency")
    screen.latency(
        [
            ("Uplink", "a frame leaves the caller's line → the model has it", up),
            ("Downlink", "audio leaves the model → the line has it", down),
            ("Barge-in", "the model hears the caller → the line is cleared", barge_in),
        ]
    )
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        screen.say(
            f"This machine was busy with other things (load {load:.1f} on {cores} cores): "
            "the figures contain waiting for a CPU.",
            "yellow",
        )
    asked = next((at for at, _ in session.response_creates), leg.began)
    screen.say(
        "Measured by the simulators, outside the daemon, with no network in between. "
        f"Downlink leaves out {held} deltas that waited on purpose: the line had a second of speech in hand. "
        f"Barge-in: this call's, and {len(delays)} more in a second call.",
        "dim",
    )
    screen.say(
        f"Twilio's webhook was answered in {call.webhook_ms:.1f} ms; the greeting was asked for "
        f"{(asked - leg.began) * 1000:.1f} ms after the stream's start.",
        "dim",
    )


def _show_folder(screen: Screen, folder: Path) -> None:
    here = _relative(folder)
    screen.headline("Where it all lies, and how to go on")
    screen.pairs(
        [
            ("Data", f"{here / 'data'}  (journal.sqlite3, calls.sqlite3)"),
            ("Logs", f"{here / 'logs' / 'combined.log'}  (console: {here / 'console.log'})"),
            ("Both sides", f"{here / 'call.wav'}  (left the caller, right the assistant, as at the line)"),
            ("Recording", f"{here / 'recording.wav'}  (the same, as the daemon recorded it)"),
            ("Caller", f"{here / 'caller.wav'}  (as the model heard it)"),
            ("Assistant", f"{here / 'assistant.wav'}  (as the caller heard it)"),
        ]
    )
    command = _command()
    screen.say()
    screen.pairs(
        [
            ("A model to try with", f"{command} simulate-openai"),
            (
                "The daemon",
                "OPENAI_REALTIME_URL=ws://127.0.0.1:8090/v1/realtime "
                f"OPENAI_BASE_URL=http://127.0.0.1:8091/v1 OPENAI_API_KEY=any {command} start",
            ),
            ("A call to it", f"{command} simulate-call"),
            ("A real number", "README.md: Twilio, OpenAI, tunnel and reverse proxy"),
        ]
    )


def _not_started(screen: Screen, folder: Path, error: DaemonError) -> None:
    screen.working("")
    screen.say(f"✘ {error}. It printed:", "bold red")
    for line in error.console or ["(nothing)"]:
        screen.say(f"    {line}", "red")
    screen.say(f"Its folder: {_relative(folder)}", "dim")


def _command() -> str:
    """How the user calls `handlehome`: by its path if it is not on the PATH."""
    command = Path(sys.executable).parent / "handlehome"
    on_path = any(Path(folder) == command.parent for folder in os.get_exec_path())
    return "handlehome" if on_path or not command.exists() else str(_relative(command))


def _relative(path: Path) -> Path:
    with contextlib.suppress(ValueError):
        return path.absolute().relative_to(Path.cwd())
    return path
