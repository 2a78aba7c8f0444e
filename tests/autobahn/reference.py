"""Echo server and client of the websockets library, to compare with; see `run.py`.

reference.py server PORT
reference.py client URL AGENT
"""

import asyncio
import contextlib
import sys

import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

MAX_MESSAGE = 16 << 20


async def echo(connection: Connection) -> str | bytes:
    """Echoes until the connection is closed, and returns the last message."""
    message: str | bytes = ""
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)
    return message


async def serve_echo(port: int) -> None:
    async def handle(connection: Connection) -> None:
        await echo(connection)

    async with serve(handle, "127.0.0.1", port, max_size=MAX_MESSAGE, compression=None):
        await asyncio.get_running_loop().create_future()


async def visit(url: str) -> str | bytes:
    async with connect(url, max_size=MAX_MESSAGE, compression=None, ping_interval=None) as connection:
        return await echo(connection)


async def drive(url: str, agent: str) -> None:
    for case in range(1, int(await visit(f"{url}/getCaseCount")) + 1):
        await visit(f"{url}/runCase?case={case}&agent={agent}")
    await visit(f"{url}/updateReports?agent={agent}")


if __name__ == "__main__":
    if sys.argv[1] == "server":
        uvloop.run(serve_echo(int(sys.argv[2])))
    else:
        uvloop.run(drive(sys.argv[2], sys.argv[3]))
