"""A daemon, put together by its own `main`, that is handed calls which have ended.

    python -m tests.soak.afterload_daemon

It listens on the port that it writes to `door` in the working directory. Each line there is a call: its
CallSid, and the kinds and data of its events, in JSON. They are written and the call is saved, as the
switchboard does it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import orjson

from handlehome.relay import daemon
from handlehome.relay.config import load_settings

DOOR = "door"


class HandedCalls(daemon.Daemon):
    """A daemon with a further door."""

    async def run(self, sockets: list[socket.socket]) -> None:
        """Serves until drained."""
        server = await asyncio.start_server(self._take, "127.0.0.1", 0, limit=1 << 20)
        Path(DOOR).write_text(str(server.sockets[0].getsockname()[1]))
        try:
            await super().run(sockets)
        finally:
            server.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            call_sid, events = orjson.loads(line)
            for kind, data in events:
                self._office.write(call_sid, kind, data)
            self._office.save(call_sid)
        writer.close()


if __name__ == "__main__":
    daemon.Daemon = HandedCalls  # type: ignore[misc]  # what `main` makes
    sys.exit(daemon.main(load_settings(env_file=None)))
