"""Both ends of a call under load, joined by the plainest relay."""

from __future__ import annotations

import base64

from handlehome.bench.loadcall import FRAME_BYTES, Ledger, Phone, Session, Totals, frames_in


def frame(number: int) -> bytes:
    return base64.b64decode(b"%08d" % number) + bytes(FRAME_BYTES - 6)


def test_frames_that_were_put_together_are_told_apart_and_silence_is_none() -> None:
    ulaw = frame(300_001) + b"\xff" * 320 + frame(300_002)
    assert frames_in(base64.b64encode(ulaw)) == [b"00300001", b"00300002"]


def test_what_passed_since_is_the_difference() -> None:
    before = Totals(sent=5, arrived=4)
    after = Totals(sent=9, arrived=9, returned=3, played=1)
    assert after.since(before) == Totals(sent=4, arrived=5, returned=3, played=1)
    assert after.missing == 2


async def test_a_session_learns_its_call_from_the_first_frame_and_notices_the_wrong_ones() -> None:
    ledger = Ledger()
    ledger.phones.append(Phone(ledger, 0))
    phone = ledger.phones[0]
    phone.sent_at.extend([0.0, 0.1, 0.2])
    session, other = Session(ledger), Session(ledger)

    def hear(end: Session, *numbers: int) -> None:
        text = base64.b64encode(b"".join(map(frame, numbers)))
        end.message_received(1.0, b'{"type":"input_audio_buffer.append","audio":"' + text + b'"}')

    hear(session, 0)
    assert (phone.session, ledger.totals.disordered) == (session, 0)
    hear(session, 1, 2)
    assert (ledger.totals.arrived, ledger.totals.messages_up, ledger.totals.disordered) == (3, 2, 0)
    hear(session, 2)  # again
    hear(session, 100_000)  # no such call
    hear(other, 0)  # of another session
    assert ledger.totals.disordered == 3


async def test_a_frame_that_nobody_sent_is_disordered() -> None:
    ledger = Ledger()
    phone = Phone(ledger, 0)
    text = base64.b64encode(frame(0))
    phone.message_received(1.0, b'{"event":"media","streamSid":"MZ","media":{"payload":"' + text + b'"}}')
    assert (ledger.totals.played, ledger.totals.messages_down, ledger.totals.disordered) == (1, 1, 1)


async def test_lost_connections_are_faults_until_the_end() -> None:
    ledger = Ledger()
    Phone(ledger, 3).lost()
    ledger.ending = True
    Session(ledger).lost()
    assert ledger.faults == ["the stream of call 3 was closed by the relay"]
