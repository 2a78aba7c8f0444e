"""The table of a call's life: complete, sane, and with a way out of every state."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.relay.call.life import TABLE, EndReason, Event, Life, Row, State

TIMERS = {
    State.CONNECTING: Event.TOKEN_EXPIRED,
    State.LIVE: Event.TIME_LIMIT,
    State.INTERRUPTED: Event.RESUME_EXPIRED,
    State.CLOSING: Event.CLOSE_EXPIRED,
}
events = st.lists(st.sampled_from(list(Event)), max_size=30)


def walked(*happened: Event) -> Life:
    life = Life()
    for event in happened:
        life.apply(event)
    return life


def test_every_state_can_be_reached_and_every_event_does_something() -> None:
    assert {row.state for row in TABLE.values()} | {State.CONNECTING} == set(State)
    assert {event for _, event in TABLE} == set(Event)


def test_the_end_is_final() -> None:
    assert not any(state is State.ENDED for state, _ in TABLE)
    life = walked(Event.LEG_STARTED, Event.CALLER_HUNG_UP)
    for event in Event:
        assert not life.apply(event)
    assert (life.state, life.reason) == (State.ENDED, EndReason.CALLER_HUNG_UP)


@pytest.mark.parametrize("state", [state for state in State if state is not State.ENDED])
def test_every_state_has_a_timer_that_leads_to_the_end(state: State) -> None:
    """A call of which nothing more is heard passes through states of which each is nearer to the end."""
    order = [State.LIVE, State.INTERRUPTED, State.CONNECTING, State.CLOSING, State.ENDED]
    row = TABLE[state, TIMERS[state]]
    assert order.index(row.state) > order.index(state)


@pytest.mark.parametrize(("key", "row"), TABLE.items(), ids=str)
def test_a_row_that_ends_a_call_or_is_about_to_names_its_reason(key: tuple[State, Event], row: Row) -> None:
    """In CLOSING the reason has been given."""
    assert (row.reason is not None) == (
        row.state in (State.CLOSING, State.ENDED) and key[0] is not State.CLOSING
    )


@pytest.mark.parametrize("state", [State.CONNECTING, State.LIVE, State.INTERRUPTED])
@pytest.mark.parametrize("event", [Event.MODEL_LOST, Event.STATUS_TERMINAL, Event.DAEMON_STOPS])
def test_what_ends_a_call_ends_it_in_every_state(state: State, event: Event) -> None:
    assert TABLE[state, event].state in (State.CLOSING, State.ENDED)


S, L, D = Event.LEG_STARTED, Event.CALLER_HUNG_UP, Event.LEG_DROPPED


@pytest.mark.parametrize(
    ("happened", "reason"),
    [
        ((S, L), EndReason.CALLER_HUNG_UP),
        ((S, Event.STATUS_TERMINAL), EndReason.CALLER_HUNG_UP),
        ((S, D, Event.RESUME_EXPIRED), EndReason.LINE_DROPPED),
        ((S, D, Event.STATUS_TERMINAL), EndReason.LINE_DROPPED),
        ((S, D, Event.CONNECT_ENDED), EndReason.LINE_DROPPED),
        ((S, D, Event.TOKEN_EXPIRED), EndReason.LINE_DROPPED),
        ((S, Event.LEG_SILENT, Event.RESUME_EXPIRED), EndReason.LINE_SILENT),
        ((S, Event.LEG_BROKEN, Event.RESUME_EXPIRED), EndReason.LINE_BROKEN),
        ((S, Event.LEG_SILENT, S, D, Event.RESUME_EXPIRED), EndReason.LINE_DROPPED),
        ((S, D, S, L), EndReason.CALLER_HUNG_UP),
        ((S, Event.MODEL_LOST, Event.CONNECT_ENDED), EndReason.MODEL_LOST),
        ((Event.MODEL_LOST, Event.CLOSE_EXPIRED), EndReason.MODEL_LOST),
        ((S, D, Event.MODEL_LOST, Event.STATUS_TERMINAL), EndReason.MODEL_LOST),
        ((S, Event.MODEL_LOST, D, Event.CONNECT_ENDED), EndReason.MODEL_LOST),
        ((S, Event.GOODBYE_SAID, Event.CONNECT_ENDED), EndReason.ASSISTANT_SAID_GOODBYE),
        ((S, Event.GOODBYE_SAID, L), EndReason.ASSISTANT_SAID_GOODBYE),
        ((S, Event.TIME_LIMIT, Event.CLOSE_EXPIRED), EndReason.TIME_LIMIT),
        ((S, D, Event.TIME_LIMIT, Event.CONNECT_ENDED), EndReason.TIME_LIMIT),
        ((S, Event.DAEMON_STOPS, Event.CONNECT_ENDED), EndReason.DAEMON_STOPPED),
        ((S, D, Event.DAEMON_STOPS), EndReason.DAEMON_STOPPED),
        ((Event.DAEMON_STOPS,), EndReason.DAEMON_STOPPED),
        ((Event.TOKEN_EXPIRED,), EndReason.NEVER_CONNECTED),
        ((Event.STATUS_TERMINAL,), EndReason.NEVER_CONNECTED),
        ((Event.CONNECT_ENDED,), EndReason.NEVER_CONNECTED),
        ((Event.STREAM_REFUSED,), EndReason.STREAM_REFUSED),
    ],
)
def test_each_way_to_end_has_its_reason(happened: tuple[Event, ...], reason: EndReason) -> None:
    life = walked(*happened)
    assert (life.state, life.reason) == (State.ENDED, reason)


def test_each_reason_stands_in_the_test_above() -> None:
    marks = getattr(test_each_way_to_end_has_its_reason, "pytestmark")  # noqa: B009 - set by pytest
    assert {reason for _, reason in marks[0].args[1]} == set(EndReason)


@given(events)
def test_an_event_that_is_not_in_the_table_changes_nothing(happened: list[Event]) -> None:
    life = Life()
    for event in happened:
        before = (life.state, life.reason)
        known = (life.state, event) in TABLE
        assert life.apply(event) is known
        assert known or (life.state, life.reason) == before


@given(events)
def test_a_reason_stands_exactly_while_a_call_is_ending(happened: list[Event]) -> None:
    life = walked(*happened)
    assert (life.reason is not None) == (life.state in (State.CLOSING, State.ENDED))


@given(events, events)
def test_the_first_reason_stays(before: list[Event], after: list[Event]) -> None:
    life = walked(*before)
    reason = life.reason
    for event in after:
        life.apply(event)
    assert reason is None or life.reason is reason
