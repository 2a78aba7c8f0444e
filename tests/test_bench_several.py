"""Several calls at once, against a real daemon."""

from pathlib import Path

from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.realtime.server import RealtimeSimulator
from handlehome.bench.several import Result, call_several
from tests.harness import KEY, TOKEN, running_daemon

BRIEF = Script(greeting=Answer(text="Bonjour", audio=b"\x01" * 1600))


async def test_each_call_is_greeted_and_reported_as_it_ends(tmp_path: Path) -> None:
    seen: list[Result] = []
    async with RealtimeSimulator(BRIEF, api_key=KEY) as model, running_daemon(tmp_path, model.url) as daemon:
        results = await call_several(daemon.url, 3, speak=[], spread=0.1, auth_token=TOKEN, done=seen.append)
    assert [result.problem for result in results] == ["", "", ""]
    assert [result.answers for result in results] == [1, 1, 1]
    assert sorted(seen, key=lambda result: result.number) == results


async def test_refused_call_is_a_problem_in_twilios_words(tmp_path: Path) -> None:
    async with (
        RealtimeSimulator(BRIEF, api_key=KEY) as model,
        running_daemon(tmp_path, model.url, {"MAX_CALLS": "1"}) as daemon,
    ):
        results = await call_several(daemon.url, 2, speak=[], spread=0.0, auth_token=TOKEN)
    assert sorted(bool(result.problem) for result in results) == [False, True]


async def test_unsigned_call_names_the_status(tmp_path: Path) -> None:
    async with RealtimeSimulator(BRIEF, api_key=KEY) as model, running_daemon(tmp_path, model.url) as daemon:
        [result] = await call_several(daemon.url, 1, speak=[], spread=0.0)
    assert "403" in result.problem
