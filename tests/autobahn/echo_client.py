"""Drives Autobahn's fuzzing server with the relay's client role: `echo_client.py URL AGENT`; see `run.py`."""

import asyncio
import sys

import uvloop

from handlehome.relay.wire.client import connect
from handlehome.relay.wire.connection import Connection

MAX_MESSAGE = 16 << 20


class Echo:
    """Sends every message back."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.last = b""

    def connection_made(self, connection: Connection) -> None:
        self._connection = connection

    def text_received(self, message: bytes) -> None:
        self.last = message
        self._connection.send_text(message)

    def binary_received(self, message: bytes) -> None:
        self._connection.send_binary(message)

    def connection_lost(self, code: int, reason: str) -> None:
        self.over.set()

    def writing_paused(self) -> None:
        """Goes on echoing: the write buffer has its own bound."""

    def writing_resumed(self) -> None:
        """Was never paused."""


async def visit(url: str) -> bytes:
    """Echoes until the server has had enough, and returns its last text."""
    echo = Echo()
    await connect(url, echo, headers={}, max_message=MAX_MESSAGE, max_write_buffer=4 * MAX_MESSAGE)
    await echo.over.wait()
    return echo.last


async def main(url: str, agent: str) -> None:
    for case in range(1, int(await visit(f"{url}/getCaseCount")) + 1):
        await visit(f"{url}/runCase?case={case}&agent={agent}")
    await visit(f"{url}/updateReports?agent={agent}")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
