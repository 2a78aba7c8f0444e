"""The simulator's WebSocket connection: websockets' own, with a short way in and faults on the way out."""

from collections.abc import Callable

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from handlehome.bench.realtime.script import Script


class SimConnection(ServerConnection):
    """A server connection that can push whole text messages and spoil the closing handshake.

    With thousands of small messages a second, waking a task for each is a fifth of the server's work: a text
    message in one frame goes straight to `sink`. The first fragmented or binary message turns that off for
    good, so that what `recv` gives from then on keeps its order.

    Attributes:
        number: Of its handshake.
        script: What its session answers.
        model: From the URL's query.
        sink: Takes whole text messages; those that came before it was set are left to `recv`.
    """

    number: int
    script: Script = Script()
    model: str
    sink: Callable[[str], None] | None = None

    def process_event(self, event: Event) -> None:
        if self.sink is not None and isinstance(event, Frame):
            if event.opcode is Opcode.TEXT and event.fin:
                try:
                    message = str(event.data, "utf-8")
                except UnicodeDecodeError:
                    pass  # `recv` closes with 1007.
                else:
                    self.sink(message)
                    return
            if event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self.sink = None
        super().process_event(event)

    def send_data(self) -> None:
        answer = self.script.faults.close_answer
        if answer != "frame" and self.protocol.close_rcvd and self.protocol.close_rcvd_then_sent:
            self.protocol.data_to_send()
            if answer == "drop":
                self.transport.abort()
            return
        super().send_data()
