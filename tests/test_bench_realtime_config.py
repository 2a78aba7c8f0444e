"""The effective session of the simulated server."""

from typing import Any

import pytest

from handlehome.bench.realtime.checks import RefusedError
from handlehome.bench.realtime.config import default_session, merged


@pytest.fixture
def session() -> dict[str, Any]:
    return default_session("sess_1", "gpt-realtime-2.1", 1_800_000_000)


def update(
    session: dict[str, Any], *, spoken: bool = False, speaking: bool = False, **fields: Any
) -> dict[str, Any]:
    return merged(session, {"type": "realtime", **fields}, spoken=spoken, speaking=speaking)


def test_fields_not_sent_keep_their_value(session: dict[str, Any]) -> None:
    result = update(session, audio={"input": {"format": {"type": "audio/pcmu"}}})
    assert result["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert result["audio"]["input"]["turn_detection"] == session["audio"]["input"]["turn_detection"]
    assert result["audio"]["output"] == session["audio"]["output"]
    assert session["audio"]["input"]["format"]["type"] == "audio/pcm"


def test_a_turn_detection_is_completed_from_the_documented_defaults(session: dict[str, Any]) -> None:
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 200
    result = update(session, audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.9}}})
    detection = result["audio"]["input"]["turn_detection"]
    assert (detection["threshold"], detection["silence_duration_ms"]) == (0.9, 500)
    semantic = update(session, audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
    assert semantic["audio"]["input"]["turn_detection"]["eagerness"] == "auto"


def test_turn_detection_can_be_turned_off(session: dict[str, Any]) -> None:
    result = update(session, audio={"input": {"turn_detection": None}})
    assert result["audio"]["input"]["turn_detection"] is None


def test_pcm_gets_its_rate(session: dict[str, Any]) -> None:
    result = update(session, audio={"output": {"format": {"type": "audio/pcm"}}})
    assert result["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}


@pytest.mark.parametrize(
    ("fields", "state", "code"),
    [
        ({"model": "gpt-realtime-2"}, {}, "invalid_value"),
        ({"audio": {"output": {"voice": "cedar"}}}, {"spoken": True}, "cannot_update_voice"),
        ({"audio": {"output": {"speed": 1.2}}}, {"speaking": True}, "invalid_value"),
    ],
)
def test_what_can_not_be_changed_is_refused(
    session: dict[str, Any], fields: dict[str, Any], state: dict[str, bool], code: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        update(session, **state, **fields)
    assert refused.value.code == code


def test_the_same_voice_may_be_sent_again_after_it_has_spoken(session: dict[str, Any]) -> None:
    update(session, spoken=True, audio={"output": {"voice": session["audio"]["output"]["voice"]}})


def test_tracing_stays_once_it_is_on(session: dict[str, Any]) -> None:
    traced = update(session, tracing="auto")
    with pytest.raises(RefusedError):
        update(traced, tracing=None)
