"""After a call, over real sockets, when OpenAI does not answer as it should."""

from __future__ import annotations

from pathlib import Path

from handlehome.bench.rest import faults, recordings
from handlehome.bench.rest.request import RESPONSES
from handlehome.bench.rest.server import RestSimulator
from tests.after_call import BRIEF_ADDRESS, BRIEF_LEAK, call, extracted
from tests.harness import KEY, running_daemon, running_stage


async def test_rules_find_what_they_can_until_the_model_answers(tmp_path: Path) -> None:
    async with (
        RestSimulator(
            api_key=KEY, answer=recordings.extract, faults=faults.numbered({0: faults.CUT}, path=RESPONSES)
        ) as rest,
        running_stage(tmp_path, {"OPENAI_BASE_URL": rest.url}) as stage,
    ):
        phone = await call(stage, BRIEF_LEAK, BRIEF_ADDRESS)
        record = await extracted(stage.daemon, phone.call_sid, "retrying", "rules")
        assert record.data is not None
        assert record.data["customer"]["phone"] == "+33612345678"
        assert record.data["summary"] is None
        record = await extracted(stage.daemon, phone.call_sid, "complete", "model")
        assert record.data is not None
        assert record.data["customer"]["last_name"] == "Martin"
        assert record.extraction is not None
        assert record.extraction["attempts"] == 2


async def test_a_wrong_key_stops_all_requests_visibly_until_it_works(tmp_path: Path) -> None:
    """Over a restart, with the right key, and without anybody having to remember the calls."""
    async with RestSimulator(api_key="sk-other", answer=recordings.extract) as rest:
        settings = {"OPENAI_BASE_URL": rest.url}
        async with running_stage(tmp_path, settings) as stage:
            phones = [await call(stage, BRIEF_ADDRESS) for _ in range(2)]
            for phone in phones:
                record = await extracted(stage.daemon, phone.call_sid, "stopped")
                assert record.data is not None
                assert record.data["customer"]["phone"] == "+33612345678"
            health = (await stage.daemon.get("/healthz")).json()
            assert health["status"] == "ok"
            assert health["extraction"]["ok"] is False
            assert health["extraction"]["stopped"] == 2
            assert len(rest.of(RESPONSES)) == 1
            await stage.daemon.wait_console("All requests for extraction are stopped", "401")
            assert not any(KEY in line for line in stage.daemon.console)
        rest.api_key = KEY
        async with running_daemon(tmp_path, stage.model.url, settings) as daemon:
            for phone in phones:
                record = await extracted(daemon, phone.call_sid, "complete", "model")
                assert record.data is not None
                assert record.data["customer"]["address"]["city"] == "Lyon"
            assert (await daemon.get("/healthz")).json()["extraction"]["ok"] is True


async def test_a_schema_of_ones_own_is_stored_as_it_is(tmp_path: Path) -> None:
    schema = tmp_path / "garage.json"
    schema.write_text(
        '{"type": "object", "additionalProperties": false, "required": ["city", "car"], "properties": '
        '{"city": {"type": ["string", "null"]}, "car": {"type": ["string", "null"]}}}'
    )
    async with (
        RestSimulator(api_key=KEY, answer=lambda request: {"city": "Lyon"}) as rest,
        running_stage(tmp_path, {"OPENAI_BASE_URL": rest.url, "EXTRACTION_SCHEMA": str(schema)}) as stage,
    ):
        phone = await call(stage, BRIEF_ADDRESS)
        record = await extracted(stage.daemon, phone.call_sid, "complete", "model")
        assert record.data == {"city": "Lyon", "car": None}
        assert record.extraction is not None
        assert record.extraction["schema"] == "garage"
