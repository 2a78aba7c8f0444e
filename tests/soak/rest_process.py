"""A simulated REST API in a process of its own.

    python -m tests.soak.rest_process

Prints its URL. A line `LEAST MOST COUNT` on the standard input has it answer after LEAST to MOST seconds from
then on; an empty line comes back when COUNT further extractions have been answered. It is nice to others, so
that what it costs is not taken for the daemon's.
"""

from __future__ import annotations

import asyncio
import os
import sys

from handlehome.bench.rest import recordings
from handlehome.bench.rest.request import Json, RestRequest
from handlehome.bench.rest.server import RestSimulator
from tests.harness import KEY


async def main() -> None:
    """Serves until its standard input ends."""
    os.nice(19)
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    left = 0
    answered = asyncio.Event()

    def answer(request: RestRequest) -> Json:
        nonlocal left
        left -= 1
        if left == 0:
            answered.set()
        return recordings.extract(request)

    async with RestSimulator(api_key=KEY, answer=answer, keep=False) as rest:
        print(rest.url, flush=True)
        while line := await commands.readline():
            least, most, count = line.split()
            rest.delay_s = (float(least), float(most))
            left = int(count)
            answered.clear()
            await answered.wait()
            print(flush=True)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
