"""The one place that asks for responses, by scenario and against a small model of the server's rules."""

from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from handlehome.relay.model.responses import ACTIVE_CODE, Responses, Wish

GREETING = Wish("greeting", "Say hello.")
TOOL = Wish("tool")


class Asked:
    """A `Responses` and what it sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.responses = Responses(self.sent.append)

    def purposes(self) -> list[str]:
        return [event["response"]["metadata"]["purpose"] for event in self.sent]

    def refuse(self, code: str | None = ACTIVE_CODE, *, named: bool = True) -> bool:
        return self.responses.refused(self.sent[-1]["event_id"] if named else None, code)


def test_a_wish_is_sent_at_once_while_nothing_is_active() -> None:
    asked = Asked()
    asked.responses.ask(GREETING)
    assert asked.sent == [
        {
            "type": "response.create",
            "event_id": "evt_response_1",
            "response": {"metadata": {"purpose": "greeting"}, "instructions": "Say hello."},
        }
    ]
    assert asked.responses.asked == 1


def test_a_wish_waits_for_the_active_response() -> None:
    asked = Asked()
    asked.responses.created("r1", ours=False)
    asked.responses.ask(TOOL)
    assert asked.sent == []
    asked.responses.done("r1")
    assert asked.purposes() == ["tool"]


def test_a_wish_waits_while_one_is_asked_for_and_not_yet_created() -> None:
    asked = Asked()
    asked.responses.ask(GREETING)
    asked.responses.ask(TOOL)
    assert asked.purposes() == ["greeting"]
    asked.responses.created("r1", ours=True)
    assert asked.purposes() == ["greeting"]
    asked.responses.done("r1")
    assert asked.purposes() == ["greeting", "tool"]


def test_the_servers_own_response_wins_the_race_and_ours_is_asked_for_again() -> None:
    """`response.created` of the server's comes before the error about ours."""
    asked = Asked()
    asked.responses.ask(GREETING)
    asked.responses.created("vad", ours=False)
    assert asked.refuse()
    assert asked.purposes() == ["greeting"]
    asked.responses.done("vad")
    assert asked.purposes() == ["greeting"] * 2
    assert asked.sent[0]["event_id"] != asked.sent[1]["event_id"]


def test_a_refusal_before_what_is_active_is_known_waits_for_its_end() -> None:
    asked = Asked()
    asked.responses.ask(GREETING)
    assert asked.refuse()
    assert asked.purposes() == ["greeting"]
    asked.responses.created("vad", ours=False)
    asked.responses.done("vad")
    assert asked.purposes() == ["greeting"] * 2


def test_a_refusal_that_names_no_event_is_ours_beside_an_active_response() -> None:
    for code in (None, ACTIVE_CODE):
        asked = Asked()
        asked.responses.ask(GREETING)
        asked.responses.created("vad", ours=False)
        assert asked.refuse(code, named=False)
        asked.responses.done("vad")
        assert asked.purposes() == ["greeting"] * 2


def test_an_error_that_names_no_event_is_not_ours_while_nothing_is_active() -> None:
    asked = Asked()
    asked.responses.ask(GREETING)
    assert not asked.refuse(None, named=False)
    asked.responses.created("r1", ours=True)
    asked.responses.done("r1")
    assert asked.purposes() == ["greeting"]


def test_an_error_taken_for_a_refusal_by_mistake_makes_no_second_greeting() -> None:
    asked = Asked()
    asked.responses.ask(GREETING)
    asked.responses.created("vad", ours=False)
    assert asked.refuse(None, named=False)
    asked.responses.created("r1", ours=True)
    asked.responses.done("r1")
    assert asked.purposes() == ["greeting"]


def test_an_error_about_something_else_is_not_ours() -> None:
    asked = Asked()
    assert not asked.responses.refused(None, ACTIVE_CODE)
    asked.responses.ask(GREETING)
    asked.responses.created("vad", ours=False)
    assert not asked.responses.refused("evt_cancel_1", "response_cancel_not_active")
    assert not asked.responses.refused(None, "invalid_value")


def test_a_request_refused_for_good_is_not_repeated_and_blocks_nothing() -> None:
    asked = Asked()
    asked.responses.ask(GREETING)
    assert not asked.refuse("invalid_value")
    assert asked.purposes() == ["greeting"]
    asked.responses.ask(TOOL)
    assert asked.purposes() == ["greeting", "tool"]


def test_a_wish_is_withdrawn_when_the_server_answers_the_callers_turn() -> None:
    asked = Asked()
    asked.responses.created("r1", ours=False)
    asked.responses.ask(TOOL)
    asked.responses.caller_speaks()
    asked.responses.done("r1")
    asked.responses.caller_committed(answered=True)
    asked.responses.created("r2", ours=False)
    asked.responses.done("r2")
    assert asked.sent == []


def test_a_request_on_its_way_is_withdrawn_too_if_it_is_refused() -> None:
    asked = Asked()
    asked.responses.ask(GREETING)
    asked.responses.caller_speaks()
    asked.responses.caller_committed(answered=True)
    asked.responses.created("vad", ours=False)
    assert asked.refuse()
    asked.responses.done("vad")
    assert asked.purposes() == ["greeting"]


def test_a_wish_stays_when_the_server_does_not_answer_by_itself() -> None:
    asked = Asked()
    asked.responses.created("r1", ours=False)
    asked.responses.ask(TOOL)
    asked.responses.caller_speaks()
    asked.responses.done("r1")
    assert asked.sent == []
    asked.responses.caller_committed(answered=False)
    assert asked.purposes() == ["tool"]


def test_nothing_is_asked_for_while_the_caller_speaks() -> None:
    asked = Asked()
    asked.responses.caller_speaks()
    asked.responses.ask(TOOL)
    assert asked.sent == []


def test_nothing_is_asked_for_between_the_callers_turn_and_the_servers_answer() -> None:
    asked = Asked()
    asked.responses.caller_speaks()
    asked.responses.caller_committed(answered=True)
    asked.responses.ask(TOOL)
    assert asked.sent == []
    asked.responses.created("vad", ours=False)
    asked.responses.done("vad")
    assert asked.purposes() == ["tool"]


def test_a_newer_wish_takes_the_place_of_one_that_waits() -> None:
    asked = Asked()
    asked.responses.created("r1", ours=False)
    asked.responses.ask(TOOL)
    asked.responses.ask(GREETING)
    asked.responses.done("r1")
    asked.responses.created("r2", ours=True)
    asked.responses.done("r2")
    assert asked.purposes() == ["greeting"]


def test_the_end_of_another_response_does_not_end_the_active_one() -> None:
    asked = Asked()
    asked.responses.created("r1", ours=False)
    asked.responses.done("r0")
    assert asked.responses.active == "r1"


class Race(RuleBasedStateMachine):
    """Client and server with messages under way in both directions."""

    @initialize(interrupts=st.booleans(), codeless=st.booleans())
    def begin(self, interrupts: bool, codeless: bool) -> None:
        self.interrupts, self.codeless = interrupts, codeless
        self.responses = Responses(self.send)
        self.up: deque[dict[str, Any]] = deque()
        self.down: deque[tuple[str, Any]] = deque()
        self.active: str | None = None  # at the server
        self.speaking = False
        self.number = 0
        self.wishes = 0
        self.latest = ""
        self.withdrawn = False  # since the latest wish, the server has answered a turn by itself
        self.granted: list[str] = []
        self.refusals = 0
        self.client_hears = False

    # client

    def send(self, event: dict[str, Any]) -> None:
        assert self.responses.active is None, "knowingly beside an active response"
        assert not self.client_hears, "knowingly over the caller's words"
        self.up.append(event)

    @rule()
    def ask(self) -> None:
        self.wishes += 1
        self.latest, self.withdrawn = f"wish_{self.wishes}", False
        self.responses.ask(Wish(self.latest))

    @precondition(lambda self: self.down)
    @rule()
    def client_gets(self) -> None:
        kind, value = self.down.popleft()
        match kind:
            case "created":
                self.responses.created(value[0], ours=value[1] is not None)
            case "done":
                self.responses.done(value)
            case "speech_started":
                self.client_hears = True
                self.responses.caller_speaks()
            case "committed":
                self.client_hears = False
                self.withdrawn = True
                self.responses.caller_committed(answered=True)
            case "error":
                self.responses.refused(*value)

    # server

    def create(self, purpose: str | None, event_id: str | None) -> None:
        if self.active is not None:
            if event_id is not None:
                self.refusals += 1
            self.down.append(("error", (None, None) if self.codeless else (event_id, ACTIVE_CODE)))
            return
        self.number += 1
        self.active = f"resp_{self.number}"
        if purpose is not None:
            self.granted.append(purpose)
        self.down.append(("created", (self.active, purpose)))

    def finish(self) -> None:
        self.down.append(("done", self.active))
        self.active = None

    @precondition(lambda self: self.up)
    @rule()
    def server_gets(self) -> None:
        event = self.up.popleft()
        self.create(event["response"]["metadata"]["purpose"], event["event_id"])

    @precondition(lambda self: self.active)
    @rule()
    def response_ends(self) -> None:
        self.finish()

    @precondition(lambda self: not self.speaking)
    @rule()
    def caller_starts(self) -> None:
        self.speaking = True
        self.down.append(("speech_started", None))
        if self.active is not None and self.interrupts:
            self.finish()

    @precondition(lambda self: self.speaking)
    @rule()
    def caller_stops(self) -> None:
        self.speaking = False
        self.down.append(("committed", None))
        self.create(None, None)

    # what holds

    @invariant()
    def no_wish_is_granted_twice(self) -> None:
        assert len(set(self.granted)) == len(self.granted)

    @invariant()
    def nothing_is_asked_for_without_a_reason(self) -> None:
        assert self.responses.asked <= self.wishes + self.refusals

    def teardown(self) -> None:
        """When all is said, the latest wish was granted or withdrawn, and a new one is granted."""
        if not hasattr(self, "up"):
            return
        if self.speaking:
            self.caller_stops()
        self.settle()
        assert self.latest in ("", *self.granted) or self.withdrawn
        self.ask()
        self.settle()
        assert self.latest in self.granted

    def settle(self) -> None:
        for _ in range(1000):
            if self.up:
                self.server_gets()
            elif self.down:
                self.client_gets()
            elif self.active is not None:
                self.finish()
            else:
                return
        raise AssertionError("an endless loop")


TestRace = Race.TestCase
TestRace.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
