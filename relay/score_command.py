"""The command `score`: how well the rules, or a model, extract data from the corpus of transcripts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from rich.console import Console

from handlehome.extract import corpus, normalise, rules
from handlehome.extract.openai_rest import OpenAIRest
from handlehome.extract.prompt import make_prompt
from handlehome.extract.schema import load_schema
from handlehome.extract.scoring_run import run, to_json, to_table
from handlehome.relay.config import Settings
from handlehome.store.clients import party

__all__ = ["run_score"]

WORKERS = 4


def by_rules(case: corpus.Case) -> dict[str, Any]:
    """What the rules find."""
    found = rules.extract(case.record, region=case.region, time_zone=case.time_zone, language=case.language)
    return _normalised(case, found)


def by_model(settings: Settings, model: str) -> Callable[[corpus.Case], dict[str, Any]]:
    """What a model finds, asked as after a call.

    Raises:
        ValueError: there is no key.
    """
    if settings.openai_api_key is None:
        raise ValueError("OPENAI_API_KEY: missing; a model is asked with it")
    rest = OpenAIRest(
        api_key=settings.openai_api_key.get_secret_value(),
        base_url=settings.openai_base_url,
        extraction_model=model,
        transcription_model=settings.openai_transcription_model,
    )
    schema = load_schema()

    def extract(case: corpus.Case) -> dict[str, Any]:
        prompt = make_prompt(case.record, time_zone=case.time_zone, language=case.language)
        found, _ = rest.extract(prompt, schema)
        return _normalised(case, found)

    return extract


def _normalised(case: corpus.Case, found: dict[str, Any]) -> dict[str, Any]:
    on = datetime.fromtimestamp(case.record.started_at, ZoneInfo(case.time_zone)).date()
    return normalise.data(found, region=case.region, caller=party(case.record), on=on)


def run_score(settings: Settings | None, model: str | None, json_file: Path | None) -> int:
    """Scores the rules, or a model, on the corpus; gives the exit status.

    Args:
        settings: how to reach the model; not needed for the rules.
        model: its name; None: the rules.
        json_file: also gets the result, with each case's differences.
    """
    console = Console(highlight=False)
    try:
        extract = by_rules if model is None or settings is None else by_model(settings, model)
    except ValueError as error:
        Console(stderr=True).print(f"handlehome: {error}", markup=False)
        return 2
    workers = 1 if model is None else WORKERS
    result = run(model or "rules", extract, corpus.load(), workers=workers, console=Console(stderr=True))
    console.print(to_table(result))
    for case in result.cases:
        if case.error is not None:
            console.print(f"{case.name}: {case.error}", markup=False)
    if json_file is not None:
        json_file.write_bytes(orjson.dumps(to_json(result), option=orjson.OPT_INDENT_2))
    return 1 if result.failed else 0
