"""The caller's queue of utterances."""

from __future__ import annotations

import time

import pytest

from handlehome.bench.mouth import CallOverError, Mouth

SILENT = b"\xff" * 160


async def test_utterances_follow_each_other_from_frame_to_frame() -> None:
    mouth = Mouth()
    assert mouth.next_frame(0, 160) == SILENT
    first, second = mouth.say(b"a" * 200), mouth.say(b"b" * 160)
    assert mouth.next_frame(1, 160) == b"a" * 160
    assert not first.done()
    assert mouth.next_frame(2, 160) == b"a" * 40 + b"\xff" * 120
    assert first.done()
    assert mouth.next_frame(3, 160) == b"b" * 160
    assert second.result().began <= second.result().ended
    assert mouth.next_frame(4, 160) == SILENT


async def test_an_empty_utterance_is_one_silent_frame() -> None:
    mouth = Mouth()
    said = mouth.say(b"")
    assert mouth.next_frame(0, 160) == SILENT
    assert said.done()


async def test_speech_for_later_waits() -> None:
    mouth = Mouth()
    mouth.say(b"a" * 160, at=time.monotonic() + 3600)
    assert mouth.next_frame(0, 160) == SILENT


async def test_after_the_call_nothing_can_be_said() -> None:
    mouth = Mouth()
    unsaid = mouth.say(b"a" * 320)
    mouth.next_frame(0, 160)
    mouth.close("hung up")
    for said in (unsaid, mouth.say(b"b")):
        with pytest.raises(CallOverError, match="hung up"):
            await said
    assert mouth.next_frame(1, 160) == SILENT
