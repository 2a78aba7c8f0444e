"""All calls of this process: admission, tokens, streams, what Twilio is told, saving.

Implements the webhooks' `Desk` and the streams' `Reception`. A call stands here from its webhook until
nothing more comes of it; then its record is made from the journal and saved.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from handlehome.relay.call.call import Call, PhoneLeg
from handlehome.relay.call.life import EndReason, Event, State
from handlehome.relay.call.premises import Party, Premises, Resumed
from handlehome.relay.logs import Event as Happening
from handlehome.relay.logs import call_logger, log_event
from handlehome.relay.phone.desk import Accepted, IncomingCall, NextStep, RefusalReason, Refused
from handlehome.relay.phone.handler import Refusal, TwilioMessageHandler
from handlehome.relay.phone.messages import Start
from handlehome.relay.phone.tokens import LIFETIME_SECONDS, TokenRegister, TokenVerdict
from handlehome.relay.phone.twiml import TOKEN_PARAMETER
from handlehome.relay.saving import Interrupted

MAX_RECONNECTS = 3
REMEMBERED_CALLS = 1000
TERMINAL = frozenset({"completed", "busy", "no-answer", "failed", "canceled"})

# What Twilio is told after a stream that we ended. Who has heard the assistant's goodbye needs no other.
_LAST_WORDS: dict[EndReason | None, NextStep] = {
    EndReason.MODEL_LOST: NextStep.FALLBACK,
    EndReason.TIME_LIMIT: NextStep.GOODBYE,
    EndReason.DAEMON_STOPPED: NextStep.GOODBYE,
}

_REFUSALS = {
    TokenVerdict.UNKNOWN: Refusal.UNKNOWN_TOKEN,
    TokenVerdict.FOREIGN: Refusal.FOREIGN_TOKEN,
    TokenVerdict.USED: Refusal.USED_TOKEN,
    TokenVerdict.EXPIRED: Refusal.EXPIRED_TOKEN,
}


class Switchboard:
    """The calls.

    Args:
        premises: shared by all calls.
        max_calls: calls at once, from the webhook until nothing more comes of one.
        save: gets the CallSid of a call of which nothing more comes.
    """

    def __init__(self, premises: Premises, max_calls: int, save: Callable[[str], None]) -> None:
        self._premises = premises
        self._max_calls = max_calls
        self._save = save
        self._tokens = TokenRegister()
        self._calls: dict[str, Call] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._strays: dict[str, Interrupted] = {}  # calls of an earlier process
        self._answers: OrderedDict[str, tuple[NextStep, str | None]] = OrderedDict()  # by idempotency token
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    # ---- desk -----------------------------------------------------------------------------------

    @property
    def refusing(self) -> RefusalReason | None:
        """Why a new call would be refused now."""
        if self._draining:
            return RefusalReason.DRAINING
        return RefusalReason.AT_CAPACITY if len(self._calls) >= self._max_calls else None

    @property
    def accepting(self) -> bool:
        """Whether a new call would be accepted now."""
        return self.refusing is None

    @property
    def active_calls(self) -> int:
        """Calls that count against `MAX_CALLS`."""
        return len(self._calls)

    def incoming_call(self, call: IncomingCall) -> Accepted | Refused:
        """Admits a call and opens its model's session at once; a repeated CallSid reuses both."""
        known = self._calls.get(call.call_sid)
        if known is not None:
            if known.life.state in (State.CLOSING, State.ENDED):
                return Refused(RefusalReason.CALL_OVER)
            return Accepted(self._promise(known))
        if call.call_sid in self._over:
            return Refused(RefusalReason.CALL_OVER)
        reason = self.refusing
        if reason is not None:
            log_event(
                call_logger(call.call_sid),
                Happening.REFUSED,
                f"Call from {call.from_ or 'unknown'} refused: {reason.value}",
                reason=reason.value,
            )
            return Refused(reason)
        return Accepted(self._promise(self._take(call)))

    def _take(self, call: IncomingCall) -> Call:
        stray = self._strays.pop(call.call_sid, None)
        resumed = None
        if stray is not None:
            began = self._premises.clock() - (time.time() - stray.started_at)
            resumed = Resumed(stray.legs, began)
        party = Party(call.call_sid, call.account_sid, call.from_, call.to, call.direction)
        taken = Call(party, self._premises, self._finished, resumes=resumed)
        self._calls[call.call_sid] = taken
        self._empty.clear()
        return taken

    def connect_ended(self, call: IncomingCall) -> tuple[NextStep, str | None]:
        """What Twilio does after a stream; a request that is sent again is answered as it was."""
        repeated = self._answers.get(call.idempotency_token) if call.idempotency_token else None
        if repeated is not None:
            return repeated
        answer = self._next_step(call)
        if call.idempotency_token:
            self._answers[call.idempotency_token] = answer
            if len(self._answers) > REMEMBERED_CALLS:
                self._answers.popitem(last=False)
        return answer

    def _next_step(self, call: IncomingCall) -> tuple[NextStep, str | None]:
        known = self._calls.get(call.call_sid)
        if call.parameters.get("CallStatus") in TERMINAL:
            # The caller hung up, and this is ahead of the stream's `stop`.
            self.call_status(call.call_sid, call.parameters["CallStatus"])
            return NextStep.NOTHING, None
        if known is None:
            return self._after_crash(call)
        if known.leg is not None:
            known.lose_leg("Twilio says that the stream is over")
        return self._after_stream(known)

    def _after_crash(self, call: IncomingCall) -> tuple[NextStep, str | None]:
        """The process that had this call has died, the caller is still there."""
        if call.call_sid not in self._strays:
            return NextStep.NOTHING, None
        if self.refusing is not None:
            self._give_up(call.call_sid)
            return NextStep.FALLBACK, None
        taken = self._take(call)
        taken.reconnects += 1
        return NextStep.RECONNECT, self._promise(taken)

    def _after_stream(self, call: Call) -> tuple[NextStep, str | None]:
        state, reason = call.life.state, call.life.reason
        if call.stream_refused:
            call.happened(Event.STREAM_REFUSED)
            return NextStep.HANG_UP, None
        if state in (State.CONNECTING, State.INTERRUPTED):
            if call.reconnects < MAX_RECONNECTS and not self._draining:
                call.reconnects += 1
                return NextStep.RECONNECT, self._promise(call)
            call.happened(Event.CONNECT_ENDED)
            return NextStep.FALLBACK, None
        if state is State.CLOSING:
            call.happened(Event.CONNECT_ENDED)
            return _LAST_WORDS.get(reason, NextStep.HANG_UP), None
        return NextStep.NOTHING, None

    def call_status(self, call_sid: str, status: str) -> None:
        """A terminal status ends the call, whatever else has been heard of it."""
        if status not in TERMINAL:
            return
        known = self._calls.get(call_sid)
        if known is not None:
            known.happened(Event.STATUS_TERMINAL)
        self._give_up(call_sid)

    def stream_status(self, call_sid: str, stream_sid: str, event: str, error: str | None) -> None:
        """Twilio's own account of a stream; an error is worth a line."""
        log = call_logger(call_sid).bind(stream_sid=stream_sid)
        if event == "stream-error":
            log.warning("Twilio reports an error of the stream: {}", error)
        else:
            log.debug("Twilio reports {}", event)

    # ---- reception ------------------------------------------------------------------------------

    def stream_started(self, stream: TwilioMessageHandler, start: Start) -> PhoneLeg | Refusal:
        """Lets a stream in whose token is right."""
        token = start.parameters.get(TOKEN_PARAMETER, "")
        verdict = self._tokens.redeem(token, start.call_sid, self._premises.clock())
        known = self._calls.get(start.call_sid)
        if verdict is not TokenVerdict.OK:
            if known is not None and known.life.state is State.CONNECTING:
                known.stream_refused = True
            return _REFUSALS[verdict]
        if known is None:
            return Refusal.CALL_OVER
        known.stream_refused = False
        return known.start_leg(start.stream_sid, stream) or Refusal.CALL_OVER

    def _promise(self, call: Call) -> str:
        """A fresh token; a call whose stream does not come while it is valid is given up."""
        if call.leg is None:
            call.arm(Event.TOKEN_EXPIRED, LIFETIME_SECONDS)
        return self._tokens.issue(call.call_sid, self._premises.clock())

    # ---- the end --------------------------------------------------------------------------------

    def _finished(self, call: Call) -> None:
        del self._calls[call.call_sid]
        self._over[call.call_sid] = None
        if len(self._over) > REMEMBERED_CALLS:
            self._over.popitem(last=False)
        if not self._calls:
            self._empty.set()
        self._save(call.call_sid)

    def adopt(self, call: Interrupted) -> None:
        """Takes note of an interrupted call of an earlier process.

        It goes on when Twilio asks for instructions, and is ended by a terminal status, or `RESUME_SECONDS`
        from now.
        """
        self._strays[call.call_sid] = call
        premises = self._premises
        premises.wheel.at(premises.clock() + premises.resume_seconds, lambda: self._give_up(call.call_sid))

    def _give_up(self, call_sid: str) -> None:
        stray = self._strays.pop(call_sid, None)
        if stray is not None:
            stray.end()

    def drain(self) -> None:
        """Admits no further call."""
        self._draining = True

    async def emptied(self) -> None:
        """Waits until there is no call."""
        await self._empty.wait()

    def stop_calls(self) -> None:
        """Ends all calls in order, because the daemon stops."""
        for call in list(self._calls.values()):
            call.happened(Event.DAEMON_STOPS)

    def finish_calls(self) -> None:
        """Waits no longer for what Twilio or the model might still have to say of them."""
        for call in list(self._calls.values()):
            call.finish()
