"""Calls under events in any order, at any time: nothing is left behind, and every call ends once."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from loguru import logger

from handlehome.relay.call.call import CLOSE_SECONDS, TRANSCRIPT_SECONDS
from handlehome.relay.call.life import EndReason
from handlehome.relay.call.switchboard import MAX_RECONNECTS, Switchboard
from handlehome.relay.phone.desk import Accepted, NextStep
from tests.relay_call_doubles import House, TwilioStream, VirtualModel, incoming

CALLS = [f"CA{number:032x}" for number in range(12)]
MAX_CALLS = 2
MAX_SECONDS = 300.0

calls = st.sampled_from(CALLS)
which = st.sampled_from([0, 0, 0, 1, 1, 2, 5])


class AnyOrder(RuleBasedStateMachine):
    """Twilio, the model and the clock do what they like."""

    @initialize(server_interrupts=st.booleans(), blocks=st.sampled_from([3, 2000]))
    def open_house(self, server_interrupts: bool, blocks: int) -> None:
        self.errors: list[str] = []
        self.sink = logger.add(self.errors.append, level="ERROR", format="{message}\n{exception}")
        self.house = House(max_seconds=MAX_SECONDS, server_interrupts=server_interrupts, blocks=blocks)
        self.switchboard = Switchboard(self.house.premises, MAX_CALLS, self.house.finished.append)
        self.tokens: list[str] = ["nonsense"]
        self.streams: list[TwilioStream] = []
        self.reconnects = dict.fromkeys(CALLS, 0)
        self.caller_items = 0

    # ---- Twilio ---------------------------------------------------------------------------------

    @rule(call_sid=calls)
    def webhook(self, call_sid: str) -> None:
        answer = self.switchboard.incoming_call(incoming(call_sid))
        if isinstance(answer, Accepted):
            self.tokens.append(answer.token)

    @rule(call_sid=calls, status=st.sampled_from(["in-progress", "in-progress", "in-progress", "completed"]))
    def call_ended(self, call_sid: str, status: str) -> None:
        step, token = self.switchboard.connect_ended(incoming(call_sid, CallStatus=status))
        assert (token is not None) == (step is NextStep.RECONNECT)
        if token is not None:
            self.tokens.append(token)
            self.reconnects[call_sid] += 1

    @rule(call_sid=calls, status=st.sampled_from(["ringing", "in-progress", "in-progress", "completed"]))
    def call_status(self, call_sid: str, status: str) -> None:
        self.switchboard.call_status(call_sid, status)

    @rule(call_sid=calls, token=which, right=st.integers(0, 5))
    def stream(self, call_sid: str, token: int, right: int) -> None:
        """Opens a stream and starts it, mostly with the newest token."""
        if len(self.streams) > 30:
            return
        stream = TwilioStream(self.house, self.switchboard, call_sid=call_sid, number=len(self.streams))
        self.streams.append(stream)
        if right:
            self.tokens.reverse()
        stream.start(self.tokens[token % len(self.tokens) if not right else 0])
        if right:
            self.tokens.reverse()

    @rule(call_sid=calls)
    def call(self, call_sid: str) -> None:
        """A call begins, or goes on, as it should."""
        answer = self.switchboard.incoming_call(incoming(call_sid))
        if isinstance(answer, Accepted) and len(self.streams) < 30:
            stream = TwilioStream(self.house, self.switchboard, call_sid=call_sid, number=len(self.streams))
            self.streams.append(stream)
            stream.start(answer.token)
            self.house.model_of(call_sid).become_ready()

    def pick(self, number: int) -> TwilioStream:
        return self.streams[-1 - number % len(self.streams)]

    @precondition(lambda self: self.streams)
    @rule(number=which, frames=st.integers(1, 40))
    def media(self, number: int, frames: int) -> None:
        stream = self.pick(number)
        for _ in range(frames):
            stream.media()
            self.house.clock.advance(0.02)

    @precondition(lambda self: self.streams)
    @rule(
        number=which,
        what=st.sampled_from(
            ["stop", "lose", "garbage", "binary", "pause", "resume", "marks", "marks", "start"]
        ),
    )
    def line(self, number: int, what: str) -> None:
        stream = self.pick(number)
        match what:
            case "stop":
                stream.stop()
            case "lose":
                stream.lose()
            case "marks":
                stream.echo_marks()
            case "start":
                stream.start(self.tokens[-1])
            case "garbage" if stream.wire.is_open:
                stream.handler.text_received(b'{"event":')
            case "binary" if stream.wire.is_open:
                stream.handler.binary_received(b"\x00")
            case "pause" if stream.wire.is_open:
                stream.handler.writing_paused()
            case "resume" if stream.wire.is_open:
                stream.handler.writing_resumed()

    # ---- the model ------------------------------------------------------------------------------

    def model(self, number: int) -> VirtualModel:
        return self.house.models[-1 - number % len(self.house.models)]

    @precondition(lambda self: self.house.models)
    @rule(number=which)
    def model_ready(self, number: int) -> None:
        self.model(number).become_ready()

    @precondition(lambda self: self.house.models)
    @rule(number=which, ms=st.sampled_from([20, 300, 3000, 20_000]), deltas=st.integers(1, 3))
    def model_speaks(self, number: int, ms: int, deltas: int) -> None:
        model = self.model(number)
        if not model.ready:
            return
        response = model.active_response or f"resp_{model.begin()}"
        for _ in range(deltas):
            model.speak(response.removeprefix("resp_"), ms, "bla ")

    @precondition(lambda self: self.house.models)
    @rule(number=which, status=st.sampled_from(["completed", "cancelled", "failed", "incomplete"]))
    def model_is_done(self, number: int, status: str) -> None:
        model = self.model(number)
        if model.active_response:
            model.done(model.active_response.removeprefix("resp_"), status, "bla bla")

    @precondition(lambda self: self.house.models)
    @rule(number=which, tool=st.sampled_from(["end_call", "fly"]))
    def model_calls_tool(self, number: int, tool: str) -> None:
        if self.model(number).ready:
            self.model(number).call_tool(tool)

    @precondition(lambda self: self.house.models)
    @rule(number=which, what=st.sampled_from(["starts", "starts", "stops", "said", "failed"]))
    def caller(self, number: int, what: str) -> None:
        model = self.model(number)
        if not model.ready:
            return
        heard_ms = model.heard_bytes // 8
        match what:
            case "starts":
                self.caller_items += 1
                model.caller_starts(f"u{self.caller_items}", heard_ms)
            case "stops":
                model.caller_stops(f"u{self.caller_items}", heard_ms)
            case "said":
                model.transcribe(f"u{self.caller_items}", "Oui.")
            case "failed":
                model.transcribe(f"u{self.caller_items}", None)

    @precondition(lambda self: self.house.models)
    @rule(number=which, really=st.integers(0, 4))
    def model_lost(self, number: int, really: int) -> None:
        if not really:
            self.model(number).lose()

    # ---- the house ------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.02, 0.3, 0.3, 1.0, 1.0, 2.5, 2.5, 6.0, 13.0, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.house.clock.advance(seconds)

    @rule(what=st.sampled_from(["drain", "stop", "finish"]), really=st.integers(0, 9))
    def daemon(self, what: str, really: int) -> None:
        if really:
            return
        if what == "drain":
            self.switchboard.drain()
        elif what == "stop":
            self.switchboard.stop_calls()
        else:
            self.switchboard.finish_calls()

    # ---- what always holds ----------------------------------------------------------------------

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert self.errors == []

    @invariant()
    def calls_are_bounded(self) -> None:
        assert self.switchboard.active_calls <= MAX_CALLS
        assert all(count <= MAX_RECONNECTS for count in self.reconnects.values())

    @invariant()
    def one_leg_at_a_time(self) -> None:
        for call_sid in CALLS:
            kinds = [kind for kind in self.house.kinds(call_sid) if kind.startswith("leg_")]
            assert kinds == ["leg_started", "leg_ended"] * (len(kinds) // 2) + ["leg_started"] * (
                len(kinds) % 2
            )

    @invariant()
    def the_greeting_is_asked_for_once(self) -> None:
        assert all(model.answers.count("greeting") <= 1 for model in self.house.models)

    @invariant()
    def what_is_over_is_over(self) -> None:
        finished = self.house.finished
        assert len(set(finished)) == len(finished)
        for call_sid in finished:
            kinds = self.house.kinds(call_sid)
            assert kinds.count("call_started") == kinds.count("call_ended") == 1
            assert kinds.count("leg_started") == kinds.count("leg_ended")
            record = self.house.record(call_sid)
            assert record.status == "ended"
            assert EndReason(record.end_reason or "")
            assert self.house.model_of(call_sid).closed
        if not self.switchboard.active_calls:
            assert self.house.pool.in_use == 0
            waiting = [stream for stream in self.streams if stream.wire.is_open]
            assert self.house.wheel.pending == len(waiting)  # for a `start`

    def teardown(self) -> None:
        """Nobody says anything any more: every call ends within its bounds, and nothing is left."""
        if not hasattr(self, "house"):
            return
        self.house.clock.advance(MAX_SECONDS + CLOSE_SECONDS + TRANSCRIPT_SECONDS + 70.0)
        logger.remove(self.sink)
        assert self.errors == []
        assert self.switchboard.active_calls == 0
        self.house.assert_all_is_free()
        assert all(not stream.wire.is_open for stream in self.streams)
        self.what_is_over_is_over()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A thousand calls' log lines are of no use."""
    logger.disable("handlehome")
    logger.enable("handlehome.relay.wheel")
    yield
    logger.enable("handlehome")


TestAnyOrder = AnyOrder.TestCase
AnyOrder.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
