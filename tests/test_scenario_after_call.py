"""What becomes of a call when it is over, over real sockets: transcript, extraction, store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from handlehome.bench.realtime.script import Script
from handlehome.bench.rest import recordings
from handlehome.bench.rest.request import TRANSCRIPTIONS
from handlehome.bench.rest.server import RestSimulator
from tests.after_call import ADDRESS, GREETING, LEAK, call, extracted
from tests.harness import KEY, Scenarios, Stage, running_stage


@dataclass
class World:
    """A daemon, its speech model, and its REST API."""

    stage: Stage
    rest: RestSimulator


scenarios = Scenarios[World](seconds=60)


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, BaseException | None]:
    folder = tmp_path_factory.mktemp("after")

    @asynccontextmanager
    async def world() -> AsyncIterator[World]:
        async with AsyncExitStack() as stack:
            rest = RestSimulator(api_key=KEY, answer=recordings.extract)
            await stack.enter_async_context(rest)
            settings = {"OPENAI_BASE_URL": rest.url}
            yield World(await stack.enter_async_context(running_stage(folder, settings)), rest)

    return scenarios.play(request, world)


@scenarios
async def the_customers_data_are_extracted_and_saved(world: World) -> None:
    """By the model, with the evidence, the usage and what it cost."""
    phone = await call(world.stage, LEAK, ADDRESS)
    record = await extracted(world.stage.daemon, phone.call_sid, "complete")
    assert record.extraction is not None
    assert (record.extraction["method"], record.extraction["model"]) == ("model", "gpt-5.6-luna")
    assert record.data is not None
    customer = record.data["customer"]
    assert (customer["first_name"], customer["last_name"]) == ("Claire", "Martin")
    assert (customer["phone"], customer["phone_source"]) == ("+33612345678", "said")
    assert customer["address"] == {"street": "12 rue des Lilas", "postcode": None, "city": "Lyon"}
    assert record.data["request"]["type"] == "intervention"
    said = {turn.text: turn.id for turn in record.turns}
    evidence = {each["field"]: each["turns"] for each in record.data["evidence"]}
    assert evidence["last_name"] == [said[LEAK.text]]
    assert evidence["city"] == [said[ADDRESS.text]]
    assert record.usage is not None
    assert set(record.usage) == {"realtime", "transcription", "extraction", "cost", "currency"}
    assert record.usage["cost"] > 0
    assert not (world.stage.daemon.data / "audio" / f"{phone.call_sid}.wav").exists()


@scenarios
async def words_that_never_came_are_transcribed_from_the_audio(world: World) -> None:
    """Those that failed, and those that had not come when the call ended."""
    phone = await call(world.stage, LEAK, ADDRESS, transcription_faults={"failed": {0}, "never": {1}})
    record = await extracted(world.stage.daemon, phone.call_sid, "complete")
    assert [turn.text for turn in record.turns if turn.role == "caller"] == [LEAK.text, ADDRESS.text]
    assert record.data is not None
    assert record.data["customer"]["last_name"] == "Martin"
    assert record.usage is not None
    assert record.usage["transcription"]["seconds"] > 2
    assert not (world.stage.daemon.data / "audio" / f"{phone.call_sid}.wav").exists()
    request = world.rest.of(TRANSCRIPTIONS)[0]
    assert request.model == "gpt-transcribe"


@scenarios
async def a_call_in_which_nobody_spoke_asks_nobody(world: World) -> None:
    async with world.stage.phone() as phone:
        await world.stage.dial(phone, Script(greeting=GREETING))
        await phone.wait_answer(quiet=0.2)
        await phone.hang_up()
    record = await extracted(world.stage.daemon, phone.call_sid, "nothing_said")
    assert record.data is None or record.data["customer"]["last_name"] is None
    assert record.extraction is not None
    assert record.extraction["model"] is None


@pytest.mark.parametrize("name", scenarios.names)
def test_after_a_call(name: str, played: dict[str, BaseException | None]) -> None:
    if (error := played[name]) is not None:
        raise error
