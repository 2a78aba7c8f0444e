"""Whole calls over real sockets: the daemon in its own process, both simulators here.

The calls run at once, each against a session script of its own.
"""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest

from handlehome.bench import speech
from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Answer, Faults, Script
from handlehome.bench.scripts import receptionist
from handlehome.relay.assistant import load_assistant
from handlehome.store.records import CallRecord, TurnRecord
from tests.harness import KEY, TOKEN, Scenarios, Stage, running_stage

scenarios = Scenarios[Stage](seconds=120)


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, BaseException | None]:
    folder = tmp_path_factory.mktemp("calls")
    return scenarios.play(request, lambda: running_stage(folder, {"RESUME_SECONDS": "4"}))


def spoken(seconds: float, tag: int) -> bytes:
    """Audio that tells which it is: nothing but one byte, or its opposite sign."""
    return bytes([tag, tag | 0x80]) * round(4000 * seconds)


def numbered(frame: int, size: int) -> bytes:
    """Caller's audio in which each frame carries its number."""
    return frame.to_bytes(4) * (size // 4)


GREETING = Answer(text="Bonjour.", audio=spoken(0.6, 0x11))
ANSWER = Answer(text="Un plombier viendra demain matin à neuf heures.", audio=spoken(3.0, 0x12))
UNAVAILABLE = load_assistant().texts.unavailable


async def turn(phone: PhoneCall, session: SimSession, seconds: float = 0.4) -> None:
    """The caller says something, and the model notices."""
    session.speech_started()
    await phone.say(spoken(seconds, 0x21))
    session.speech_stopped()


def well_behaved(phone: PhoneCall, session: SimSession) -> None:
    """Neither Twilio nor the model has anything to complain of."""
    assert not phone.errors
    assert not phone.violations
    assert not session.violations
    assert not session.errors
    assert all(accepted for *_, accepted in session.truncations)


def said(record: CallRecord) -> list[tuple[str, str | None]]:
    """Who said what, in order."""
    return [(turn.role, turn.text) for turn in record.turns]


# ---- a call as it should be ------------------------------------------------------------------------


@scenarios
async def real_speech_with_an_interruption(stage: Stage) -> None:
    """A greeting, an exchange, an interruption and another exchange come to the right record and audio."""
    recordings = {name: speech.load(name) for name in speech.ids()}
    async with stage.phone() as phone:
        number = await stage.dial(phone, receptionist())
        epoch = time.time() - time.monotonic()
        session = await stage.session(number)
        await phone.wait_answer()
        leak = await phone.say(recordings["caller-leak"].ulaw)
        await phone.wait_heard(phone.heard_bytes + 12_000)
        urgent = await phone.say(recordings["caller-urgent"].ulaw)
        await phone.wait_answer()
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
        well_behaved(phone, session)

    # The record.
    assert (record.status, record.end_reason) == ("ended", "caller_hung_up")
    assert (record.from_, record.to, record.direction) == ("+33612345678", "+33123456789", "inbound")
    assert [leg.end_reason for leg in record.legs] == ["stopped"]
    greeting, first, advice, second, answer = record.turns
    expected = ["assistant-greeting", "caller-leak", "assistant-advice", "caller-urgent", "assistant-urgent"]
    for each, name in zip(record.turns, expected, strict=True):
        assert (each.role, each.text) == (recordings[name].role, recordings[name].text)
        assert each.interrupted == (name == "assistant-advice")
        assert each.start_ms is not None
        assert each.end_ms is not None
        assert 0 < each.start_ms < each.end_ms
    assert all(a.start_ms < b.start_ms for a, b in pairwise(record.turns))  # type: ignore[operator]

    # Its times, beside the simulated line's, which knows the truth.
    (leg,) = phone.legs
    segments = leg.playback.segments()
    (clear,) = leg.clears

    def call_ms(monotonic: float) -> float:
        return (monotonic + epoch - record.started_at) * 1000

    heard_first = len(recordings["assistant-greeting"].ulaw)
    assert greeting.start_ms == pytest.approx(call_ms(segments[0].at), abs=250)
    assert greeting.heard_ms == len(recordings["assistant-greeting"].ulaw) // 8
    assert first.start_ms == pytest.approx(call_ms(leak.began), abs=250)
    assert first.end_ms == pytest.approx(call_ms(leak.ended), abs=250)
    assert second.start_ms == pytest.approx(call_ms(urgent.began), abs=250)
    assert advice.heard_ms == pytest.approx((clear.played_bytes - heard_first) / 8, abs=200)
    assert advice.heard_text
    assert advice.text
    assert advice.text.startswith(advice.heard_text)
    assert answer.heard_text is None
    first_audible, position = {}, 0
    for segment in segments:
        first_audible[position] = segment.at
        position += len(segment.ulaw)
    for each, start, ended in (
        (advice, first_audible[heard_first], leak.ended),
        (answer, first_audible[clear.played_bytes], urgent.ended),
    ):
        assert each.response_ms == pytest.approx((start - ended) * 1000, abs=300)

    # The audio: each byte of a heard answer, and each of the caller's.
    cut = clear.played_bytes - heard_first
    assert leg.playback.played() == (
        recordings["assistant-greeting"].ulaw
        + recordings["assistant-advice"].ulaw[:cut]
        + recordings["assistant-urgent"].ulaw
    )
    assert bytes(session.audio) == bytes(leg.sent_ulaw)
    assert not leg.playback.gaps()

    # The journal.
    kinds = [event.kind for event in await stage.daemon.journal_until(phone.call_sid, "call_saved")]
    end = kinds.index("leg_ended")
    assert kinds[:2] == ["call_started", "leg_started"]
    assert set(kinds[2:end]) == {"turn", "usage"}
    assert kinds[end : end + 2] == ["leg_ended", "call_ended"]
    assert set(kinds[end + 2 :]) <= {"extracted", "call_saved"}

    # The log.
    lines = [line for line in stage.daemon.log() if line["call_sid"] == phone.call_sid]
    events = [line["event"] for line in lines]
    assert {"call_started", "leg_started", "model_connected", "barge_in", "call_ended", "saved"} <= set(
        events
    )
    assert (events.count("caller_turn"), events.count("assistant_turn")) == (2, 3)
    (token,) = re.findall(r'name="token" value="([^"]+)"', phone.documents[0])
    told = "\n".join(stage.daemon.console)
    for path in stage.daemon.logs.iterdir():
        told += path.read_text()
    assert phone.call_sid in told
    for secret in (KEY, TOKEN, token, "33612345678", "33123456789", "0612345678"):
        assert secret not in told


@scenarios
async def first_words_before_the_model_is_ready(stage: Stage) -> None:
    """A caller who speaks at once, while the model takes its time, is heard from the first byte on."""
    slow = Script(
        greeting=GREETING,
        vad="manual",
        session_update_ms=(600, 600),
        faults=Faults(handshake_delay_s=0.8),
    )
    async with stage.phone(source=numbered) as phone:
        number = await stage.dial(phone, slow)
        await phone.wait_heard(len(GREETING.audio))
        session = await stage.session(number)
        await phone.hang_up()
        await session.wait_closed()
        well_behaved(phone, session)
    assert phone.leg.began < session.sent[0].t  # the line was open before the session
    assert bytes(session.audio) == bytes(phone.leg.sent_ulaw)
    assert len(session.response_creates) == 1


# ---- transcriptions --------------------------------------------------------------------------------


async def _transcribed(stage: Stage, **options: object) -> tuple[list[TurnRecord], float]:
    """Hangs up as soon as the caller is answered; gives his turns, and how long the record took, seconds."""
    script = Script(
        greeting=GREETING,
        answers=[ANSWER],
        vad="manual",
        caller_texts=["C'est urgent."],
        **options,  # type: ignore[arg-type]
    )
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_answer()
        await turn(phone, session)
        await phone.wait_heard(len(GREETING.audio) + 1)
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
        well_behaved(phone, session)
        at = {
            event.kind: event.at for event in await stage.daemon.journal_until(phone.call_sid, "call_saved")
        }
    assert record.end_reason == "caller_hung_up"
    return [each for each in record.turns if each.role == "caller"], at["call_saved"] - at["call_ended"]


@scenarios
async def late_transcription_after_the_hang_up(stage: Stage) -> None:
    """The caller's last words are in the record, though they were written down after the call."""
    (last,), took = await _transcribed(stage, transcription_ms=(1500, 1500))
    assert last.text == "C'est urgent."
    assert took > 1


@scenarios
async def failed_transcription(stage: Stage) -> None:
    """A turn that can't be transcribed stays in the record without words, and nobody waits for them."""
    (last,), took = await _transcribed(
        stage, transcription_ms=(100, 100), transcription_faults={"failed": {0}}
    )
    assert last.text is None
    assert took < 2.5


@scenarios
async def transcription_that_never_comes(stage: Stage) -> None:
    """The record waits for the caller's last words for a bounded time."""
    (last,), took = await _transcribed(stage, transcription_faults={"never": {0}})
    assert last.text is None
    assert took > 2.5


# ---- hanging up ------------------------------------------------------------------------------------


@scenarios
async def caller_hangs_up_in_mid_answer(stage: Stage) -> None:
    """What was heard of the answer is what the line had played."""
    script = Script(greeting=GREETING, answers=[ANSWER], vad="manual", caller_texts=["Allô ?"])
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_answer()
        await turn(phone, session)
        await phone.wait_heard(len(GREETING.audio) + 8000)
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
        well_behaved(phone, session)
    answer = record.turns[-1]
    heard = (phone.leg.playback.played_bytes - len(GREETING.audio)) / 8
    assert (answer.role, answer.text, answer.interrupted) == ("assistant", ANSWER.text, True)
    assert answer.heard_ms == pytest.approx(heard, abs=200)
    assert answer.heard_text
    assert ANSWER.text.startswith(answer.heard_text)


@scenarios
async def caller_hangs_up_in_mid_turn(stage: Stage) -> None:
    """What the caller was saying when the line closed is a turn too, with its words."""
    script = Script(greeting=GREETING, vad="manual", caller_texts=["Au revoir."])
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_answer()
        session.speech_started()
        await phone.say(spoken(0.4, 0x21))
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
        assert await session.wait_closed() == (1000, "")
        well_behaved(phone, session)
    assert record.end_reason == "caller_hung_up"
    assert said(record) == [("assistant", GREETING.text), ("caller", "Au revoir.")]


@scenarios
async def assistant_hangs_up(stage: Stage) -> None:
    """The goodbye is heard to its last sample before Twilio is told to hang up."""
    goodbye = Answer(text="Au revoir !", audio=spoken(1.2, 0x13), function_call=("end_call", "{}"))
    script = Script(greeting=GREETING, answers=[goodbye], vad="manual", caller_texts=["Merci."])
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_answer()
        await turn(phone, session)
        await phone.ended()
        record = await stage.daemon.record(phone.call_sid)
        well_behaved(phone, session)
    assert phone.leg.playback.played() == GREETING.audio + goodbye.audio
    assert phone.leg.unplayed_bytes == 0
    assert "<Hangup" in phone.documents[-1]
    assert not phone.said
    assert record.end_reason == "assistant_said_goodbye"
    assert [each.text for each in record.turns] == [GREETING.text, "Merci.", goodbye.text]
    assert not record.turns[-1].interrupted


# ---- a model that can't be had ---------------------------------------------------------------------


@scenarios
async def model_lost_in_mid_answer(stage: Stage) -> None:
    """The caller hears why the assistant fell silent."""
    async with stage.phone() as phone:
        script = Script(greeting=ANSWER, vad="manual")
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_heard(4000)
        session.drop()
        await phone.ended()
        record = await stage.daemon.record(phone.call_sid)
    assert phone.said == [UNAVAILABLE]
    assert not phone.violations
    assert record.end_reason == "model_lost"
    assert [each.role for each in record.turns] == ["assistant"]
    assert record.turns[0].interrupted


@scenarios
async def model_session_expires(stage: Stage) -> None:
    """A session at its time limit is a model lost: never a dead line."""
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, Script(greeting=GREETING, vad="manual")))
        await phone.wait_answer()
        session.expire()
        await phone.ended()
        record = await stage.daemon.record(phone.call_sid)
    assert phone.said == [UNAVAILABLE]
    assert record.end_reason == "model_lost"


@scenarios
async def model_refuses_the_key(stage: Stage) -> None:
    """A caller whom no model can be had for hears words instead of silence."""
    async with stage.phone() as phone:
        await stage.dial(phone, Script(faults=Faults(handshake_status=401)))
        await phone.ended()
        record = await stage.daemon.record(phone.call_sid)
    assert phone.said == [UNAVAILABLE]
    assert record.end_reason == "model_lost"
    assert not record.turns


# ---- lines that break ------------------------------------------------------------------------------


@scenarios
async def dropped_line_comes_back(stage: Stage) -> None:
    """A second stream goes on with the same conversation, and nobody is greeted twice."""
    script = Script(greeting=GREETING, answers=[ANSWER], vad="manual", caller_texts=["Allô ?"])
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_answer()
        await phone.drop()
        await phone.wait_leg(2)
        await turn(phone, session)
        await phone.wait_answer()
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
        assert not session.violations
        assert not phone.violations
    assert len(session.response_creates) == 1
    assert [leg.end_reason for leg in record.legs] == ["dropped", "stopped"]
    assert said(record) == [
        ("assistant", GREETING.text),
        ("caller", "Allô ?"),
        ("assistant", ANSWER.text),
    ]
    assert phone.legs[0].playback.played() == GREETING.audio
    assert phone.legs[1].playback.played() == ANSWER.audio
    assert bytes(session.audio) == bytes(phone.legs[0].sent_ulaw + phone.legs[1].sent_ulaw)
    assert record.end_reason == "caller_hung_up"


@scenarios
async def line_drops_in_mid_answer(stage: Stage) -> None:
    """The rest of an answer is not played into the next stream: the assistant takes up the conversation."""
    again = Answer(text="Excusez-moi.", audio=spoken(0.5, 0x33))
    script = Script(greeting=ANSWER, answers=[again, GREETING], vad="manual")
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_heard(4000)
        await phone.drop()
        leg = await phone.wait_leg(2)
        while leg.playback.played_bytes < len(again.audio):
            await phone.wait_heard(phone.heard_bytes + 1)
        await phone.wait_quiet()
        await turn(phone, session)
        await phone.wait_answer()
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
        assert not session.violations
        assert all(accepted for *_, accepted in session.truncations)
    assert record.turns[0].interrupted
    assert phone.legs[1].playback.played() == again.audio + GREETING.audio


@scenarios
async def half_open_line(stage: Stage) -> None:
    """A line that sends nothing for ten seconds is given up; the call goes on with the next one."""
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, Script(greeting=GREETING, vad="manual")))
        await phone.wait_answer()
        phone.go_silent()
        silent = time.monotonic()
        await phone.wait_leg(2, within=25)
        assert 8 < phone.legs[0].ended - silent < 20
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)
        assert not session.violations
    assert phone.legs[0].close_code == 1001
    assert [leg.end_reason for leg in record.legs] == ["silent", "stopped"]


@scenarios
async def line_that_never_comes_back(stage: Stage) -> None:
    """A call of which nothing more is heard is given up after `RESUME_SECONDS`."""
    async with stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, Script(greeting=GREETING, vad="manual")))
        await phone.wait_answer()
        await phone.aclose()
        lost = time.monotonic()
        record = await stage.daemon.record(phone.call_sid)
        assert time.monotonic() - lost > 3.5
        await session.wait_closed()
    assert record.end_reason == "line_dropped"


@pytest.mark.parametrize("name", scenarios.names)
def test_call(name: str, played: dict[str, BaseException | None]) -> None:
    """Each call went as its scenario says."""
    if (error := played[name]) is not None:
        raise error
