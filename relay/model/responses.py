"""The one place that asks for responses.

The server's voice-activity detection creates responses of its own, and a second one beside an active
one is refused (`conversation_already_has_active_response`). So a wish is sent only while nothing is
active and the caller is silent; otherwise it waits for `response.done`, and it is dropped when the
caller's turn is answered meanwhile. Pure: `send` is called with what is to be sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from handlehome.relay.model import messages

ACTIVE_CODE = "conversation_already_has_active_response"


@dataclass(frozen=True, slots=True)
class Wish:
    """A response that we want.

    Attributes:
        purpose: comes back in the response's metadata.
        instructions: for this response only; None: the session's.
    """

    purpose: str
    instructions: str | None = None


class Responses:
    """Knows the active response and holds at most one wish.

    Attributes:
        active: id of the response in progress.
        asked: how many `response.create` were sent.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._wish: Wish | None = None
        self._sent: tuple[str, Wish | None] | None = None  # asked for, not yet created; None: withdrawn since
        self._last: Wish | None = None  # asked for last
        self._hearing = False  # the caller is speaking
        self._answering = False  # the caller's turn was committed, its response is about to be created
        self.active: str | None = None
        self.asked = 0

    def ask(self, wish: Wish) -> None:
        """Asks for a response, now or when the active one is done; a newer wish replaces an older."""
        self._wish = wish
        self._settle()

    def caller_speaks(self) -> None:
        """The caller has begun to speak: an answer that was about to come will not, and ours waits."""
        self._answering = False
        self._hearing = True

    def caller_committed(self, *, answered: bool) -> None:
        """The caller's turn is in the conversation; `answered`: the server answers it by itself."""
        self._hearing = False
        self._answering = answered
        if answered:
            self._wish = None
            if self._sent is not None:
                self._sent = (self._sent[0], None)
        self._settle()

    def created(self, response_id: str, *, ours: bool) -> None:
        """`response.created`; `ours`: it carries the metadata of a wish."""
        self.active = response_id
        self._answering = False
        if ours:
            self._sent = None
            if self._wish is self._last:
                self._wish = None  # an error that named no event was taken for its refusal

    def done(self, response_id: str | None) -> None:
        """`response.done`, however it ended."""
        if response_id == self.active:
            self.active = None
        self._answering = False
        self._settle()

    def refused(self, event_id: str | None, code: str | None) -> bool:
        """An `error` event.

        Returns:
            Whether it was about a `response.create` of ours that waits its turn now.
        """
        if self._sent is None:
            return False
        sent_id, wish = self._sent
        if event_id is None and code in (None, ACTIVE_CODE) and self.active is not None:
            # An error need not say whose it is. But beside an active response ours can't but be refused.
            code = ACTIVE_CODE
        elif event_id != sent_id:
            return False
        self._sent = None
        if code != ACTIVE_CODE:
            self._settle()
            return False
        if self._wish is None:
            self._wish = wish
        # What is active may not have been announced yet; its `done` asks again.
        self._answering = self.active is None
        return True

    def _settle(self) -> None:
        if self._wish is None or self._sent is not None or self.active is not None:
            return
        if self._answering or self._hearing:
            return
        wish, self._wish = self._wish, None
        self._last = wish
        self.asked += 1
        event_id = f"evt_response_{self.asked}"
        self._sent = (event_id, wish)
        self._send(messages.response_create(event_id, wish.instructions, wish.purpose))
