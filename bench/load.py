"""A light load: many calls at once, both ends of a relay in one process.

    async with Load(calls=100) as load:
        ...start a relay that opens its sessions at load.model_url...
        await load.dial("http://127.0.0.1:8080")
        load.begin_window()
        await asyncio.sleep(10)
        window = load.end_window()

Each phone sends a frame of 160 bytes every 20 ms, by absolute deadlines; the phones' phases are spread over
the 20 ms. Each model session returns every append's audio at once as a delta of one endless response, and is
half a second ahead, as a real model is: otherwise the relay would, rightly, gather audio whenever the load was
late. Every frame carries its call and its number as the first digits of its base64 text, so both ends know
which one arrived and how long it took. The times are taken here: before a frame is given to the event loop,
and when the read that holds it comes back, so what this process itself adds is in them.

The simulators (`phone`, `realtime`) follow the protocols to the letter. This is a load: its frames are
right, and everything else is as little as it takes. Messages are composed and cut up by hand, and clients mask
with zeros, which costs the relay what any mask costs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from array import array
from collections import deque
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson
from websockets.speedups import apply_mask

from handlehome.bench import media, twilio, twiml
from handlehome.bench.loadsocket import AcceptedSocket, LoadSocket, OpenedSocket
from handlehome.bench.loadstats import Totals, Window
from handlehome.bench.twilio import Origin, WebhookClient
