"""An echo server on the very protocol class that the media socket uses, behind uvicorn as in production.

    python tests/echo_server.py PORT [--loop uvloop|asyncio]

Sends every text and binary message back. It exists to be tested by others: see `autobahn/run.py`.
"""

import argparse

import uvicorn

from handlehome.relay.wire.connection import Connection
from handlehome.relay.wire.server import HttpProtocol, UpgradeRequest, media_protocol

MAX_MESSAGE = 16 << 20


class Echo:
    """The owner of one connection."""

    def connection_made(self, connection: Connection) -> None:
        self._connection = connection

    def text_received(self, message: bytes) -> None:
        self._connection.send_text(message)

    def binary_received(self, message: bytes) -> None:
        self._connection.send_binary(message)

    def connection_lost(self, code: int, reason: str) -> None:
        del self._connection

    def writing_paused(self) -> None:
        """Goes on echoing: the write buffer has its own bound."""

    def writing_resumed(self) -> None:
        """Was never paused."""


def gate(request: UpgradeRequest) -> Echo:
    """Lets everybody in."""
    return Echo()


async def no_app(scope: object, receive: object, send: object) -> None:
    """Serves no HTTP; a request is answered 500."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    arguments = parser.parse_args()
    uvicorn.run(
        no_app,
        host="127.0.0.1",
        port=arguments.port,
        http=HttpProtocol,
        ws=media_protocol(
            gate, max_message=MAX_MESSAGE, max_write_buffer=4 * MAX_MESSAGE, max_odd_frames=None
        ),
        loop=arguments.loop,
        lifespan="off",
        log_level="warning",
    )


if __name__ == "__main__":
    main()
