"""/healthz and /readyz, asked of a real daemon."""

from pathlib import Path

import httpx2

from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.realtime.server import RealtimeSimulator
from tests.harness import KEY, TOKEN, running_daemon


async def test_ready_until_the_last_line_is_taken(tmp_path: Path) -> None:
    script = Script(greeting=Answer(text="Bonjour", audio=b"\x01" * 1600))
    async with (
        RealtimeSimulator(script, api_key=KEY) as model,
        running_daemon(tmp_path, model.url, {"MAX_CALLS": "1"}) as daemon,
        httpx2.AsyncClient(base_url=daemon.url) as http,
    ):
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "active_calls": 0})
        async with PhoneCall(daemon.url, auth_token=TOKEN) as call:
            await call.dial()
            full = await http.get("/readyz")
            assert full.status_code == 503
            assert full.json() == {"ready": False, "active_calls": 1, "reason": "at_capacity"}
            assert (await http.get("/healthz")).status_code == 200
            await call.hang_up()
