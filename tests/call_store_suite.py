"""What every call store must do: `test_store_sqlite` and `test_store_mongo` run all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import pytest

from handlehome.store.calls import (
    EVERY_CALL,
    CallQuery,
    CallStore,
    CallStoreUnavailable,
    ErasureReport,
    RecordRefused,
)
from handlehome.store.clients import ClientRecord
from handlehome.store.records import CallRecord, LegRecord, TurnRecord

START = 1_900_000_000.25  # 2030-03-17, 18:46:40 in Paris
DAY = 86_400.0
CALLER, OTHER, COMPANY = "+33612345678", "+33698765432", "+33123456789"

DATA = {
    "customer": {
        "first_name": "Zoé",
        "last_name": "Lefèvre",
        "phone": CALLER,
        "phone_source": "caller_id",
        "email": "zoe@example.fr",
        "address": {"street": "3 rue des Lilas", "postcode": "69003", "city": "Lyon"},
        "company": None,
    },
    "request": {"type": "quote", "services": ["chauffe-eau"], "description": None, "urgency": "low"},
    "summary": "Devis pour un chauffe-eau.",
    "evidence": [{"field": "first_name", "turns": ["item_2"], "confidence": 0.75}],
    "odd.key": {"$": 1, "": [], "big": 2**62, "share": 1.5},
}

RECORD = CallRecord(
    "CA1",
    START,
    from_=CALLER,
    to=COMPANY,
    direction="inbound",
    assistant="Léa",
    status="ended",
    ended_at=START + 61.25,
    end_reason="caller_hung_up",
    legs=(LegRecord(0, "MZ1", START + 0.25, START + 61.25, "caller_hung_up"),),
    turns=(
        TurnRecord("item_1", "assistant", "Bonjour !", 300, 1200.5, 900.25, "Bon", True, None),
        TurnRecord("item_2", "caller", "Bonjour, ma chaudière fuit dans l'évier, c'est l'été."),
    ),
    data=DATA,
    extraction={"status": "complete", "method": "model", "attempts": 1},
    usage={"cost": 0.0125, "currency": "USD"},
)


class Opener(Protocol):
    """Opens a store of the test's own; the same one each time."""

    def __call__(self, *, retention_days: int | None = None) -> CallStore: ...


def call(number: int, **changes: Any) -> CallRecord:
    """An ended call without data, `number` seconds after the first one."""
    at = START + number
    base = CallRecord(
        f"CA{number:03}",
        at,
        CALLER,
        COMPANY,
        "inbound",
        status="ended",
        ended_at=at + 10,
        end_reason="goodbye",
    )
    return replace(base, **changes)


def customer(**fields: Any) -> dict[str, Any]:
    """Extracted data that hold but these of the customer."""
    return {"customer": fields}


def sids(store: CallStore, query: CallQuery = EVERY_CALL) -> list[str]:
    return [found.record.call_sid for found in store.find(query).calls]


def at_once(*works: Callable[[], None]) -> None:
    """Runs them in threads that start together; raises what the first one raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        try:
            start.wait(10)
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


class CallStoreSuite:
    """Run by a subclass in a module that has the fixture `opened`."""

    @pytest.fixture
    def store(self, opened: Opener) -> CallStore:
        return opened()

    # Saving and getting

    def test_record_comes_back_as_it_was_saved(self, store: CallStore) -> None:
        store.save(RECORD)
        assert store.get("CA1") == RECORD
        assert store.get("CA2") is None
        assert store.stored("CA2") is None

    def test_least_record_comes_back_too(self, store: CallStore) -> None:
        least = CallRecord("CA1", 0.0)
        store.save(least)
        assert store.get("CA1") == least
        assert store.clients().clients == ()

    def test_saving_twice_leaves_one_call_of_one_client(self, store: CallStore) -> None:
        store.save(RECORD)
        before = store.client(CALLER)
        store.save(RECORD)
        assert store.recent(10) == [RECORD]
        assert store.client(CALLER) == before
        assert before is not None
        assert before.calls == 1

    def test_states_of_a_live_call_follow_each_other(self, store: CallStore) -> None:
        live = replace(RECORD, status="live", ended_at=None, end_reason=None, data=None, turns=())
        for state in (
            live,
            replace(live, turns=RECORD.turns[:1]),
            replace(live, status="interrupted"),
            replace(live, turns=RECORD.turns),
            RECORD,
        ):
            store.save(state)
            assert store.get("CA1") == state
        client = store.client(CALLER)
        assert client is not None
        assert (client.calls, client.first_name) == (1, "Zoé")

    @pytest.mark.parametrize("status", ["live", "interrupted"])
    def test_ended_call_stays_ended(self, store: CallStore, status: Any) -> None:
        store.save(RECORD)
        store.save(replace(RECORD, status=status, ended_at=None, data=None))
        assert store.get("CA1") == RECORD

    def test_ended_call_is_saved_anew_when_more_is_known(self, store: CallStore) -> None:
        store.save(replace(RECORD, data=None))
        store.save(RECORD)
        later = replace(RECORD, data=customer(first_name="Chloé"))
        store.save(later)
        assert store.get("CA1") == later
        client = store.client(CALLER)
        assert client is not None
        assert (client.first_name, client.last_name, client.calls) == ("Chloé", None, 1)

    @pytest.mark.parametrize(
        "unstorable", [{"text": "\ud800"}, {"number": 2**70}, {"key": {1, 2}}], ids=["text", "number", "type"]
    )
    def test_record_that_holds_what_no_store_can_is_refused(self, store: CallStore, unstorable: Any) -> None:
        with pytest.raises(RecordRefused, match="CA1"):
            store.save(replace(RECORD, data=unstorable))
        assert store.get("CA1") is None
        store.save(RECORD)

    def test_record_at_no_time_is_refused(self, store: CallStore) -> None:
        with pytest.raises(RecordRefused):
            store.save(CallRecord("CA1", 1e18))

    def test_data_of_any_schema_are_kept(self, store: CallStore) -> None:
        """What stands where the built-in schema has the customer may be anything."""
        for number, data in enumerate(
            [
                {},
                {"customer": "Zoé", "request": ["quote"]},
                {"customer": {"first_name": ["Zoé"], "address": "Lyon", "email": " ", "phone": 33}},
                {"customer": None, "request": {"type": {"kind": 1}}},
            ]
        ):
            record = call(number, data=data)
            store.save(record)
            assert store.get(record.call_sid) == record
        client = store.client(CALLER)
        assert client == ClientRecord(CALLER, START, START + 3, 4, "CA003")
        assert store.statistics(zone=UTC).by_request_type == {"unknown": 4}

    # Lists

    def test_latest_calls_come_first(self, store: CallStore) -> None:
        for number in (5, 1, 9, 3):
            store.save(call(number))
        assert sids(store) == ["CA009", "CA005", "CA003", "CA001"]
        assert [record.call_sid for record in store.recent(3)] == ["CA009", "CA005", "CA003"]
        assert store.recent(0) == store.recent(-1) == []

    def test_pages_hold_each_call_once_while_calls_come_in(self, store: CallStore) -> None:
        """Calls that start in the same millisecond are told apart by their CallSid."""
        for number in range(10):
            store.save(call(number, started_at=START + number // 4))
        seen: list[str] = []
        cursor = None
        for more in range(20):
            page = store.find(limit=3, cursor=cursor)
            seen += [found.record.call_sid for found in page.calls]
            store.save(call(100 + more))
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == [f"CA{number:03}" for number in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)]

    def test_last_page_leads_nowhere(self, store: CallStore) -> None:
        for number in range(4):
            store.save(call(number))
        first = store.find(limit=2)
        last = store.find(limit=2, cursor=first.cursor)
        assert first.cursor is not None
        assert last.cursor is None
        assert store.find(limit=0).calls == ()

    @pytest.mark.parametrize("cursor", ["", "x", "12", "1e9.CA1", "99999999999999999999.CA1"])
    def test_what_is_no_cursor_is_refused(self, store: CallStore, cursor: str) -> None:
        with pytest.raises(ValueError, match="cursor"):
            store.find(cursor=cursor)
        with pytest.raises(ValueError, match="cursor"):
            store.clients(cursor=cursor)

    def test_filters(self, store: CallStore) -> None:
        store.save(call(1, data={"request": {"type": "emergency"}}))
        store.save(call(2, from_=OTHER, end_reason="caller_hung_up"))
        store.save(call(3, from_=COMPANY, to=OTHER, direction="outbound-api"))
        store.save(call(4, status="live", ended_at=None, end_reason=None, data=customer(phone=OTHER)))
        assert store.set_workflow("CA003", "done")
        for query, numbers in (
            (CallQuery(), [4, 3, 2, 1]),
            (CallQuery(since=START + 2), [4, 3, 2]),
            (CallQuery(until=START + 2), [1]),
            (CallQuery(since=START + 2, until=START + 3), [2]),
            (CallQuery(from_=OTHER), [2]),
            (CallQuery(to=OTHER), [3]),
            (CallQuery(client=OTHER), [3, 2]),
            (CallQuery(phone=OTHER), [4, 3, 2]),
            (CallQuery(phone=OTHER, from_=CALLER), [4]),
            (CallQuery(status="live"), [4]),
            (CallQuery(end_reason="caller_hung_up"), [2]),
            (CallQuery(request_type="emergency"), [1]),
            (CallQuery(workflow="done"), [3]),
            (CallQuery(workflow="new", status="ended"), [2, 1]),
            (CallQuery(from_=CALLER, end_reason="caller_hung_up"), []),
        ):
            found = [f"CA{number:03}" for number in numbers]
            assert (query, sids(store, query)) == (query, found)
            page = store.find(query, limit=1)
            assert [one.record.call_sid for one in page.calls] == found[:1]
            assert (page.cursor is not None) == (len(found) > 1)

    # Search

    def test_search_finds_beginnings_of_words_whatever_their_accents(self, store: CallStore) -> None:
        store.save(RECORD)
        for text in (
            *("chaudière", "CHAUDIERE", "e\u0301vier", "été", "fuit chaud", "chauffe-eau", "lefevre"),
            *("zoe@example.fr", "l'évier", "devis chaudière lilas", "33612345678", "+33612345678"),
            *("chau.*", "...", ""),
        ):
            assert (text, sids(store, CallQuery(text=text))) == (text, ["CA1"])
        for text in (
            *("audière", "chaudière robinet", "chaudière OR robinet", "chaudière NOT évier", "first_name"),
            *('"; DROP TABLE calls', "words:chaudière", "^robinet", "chau|robinet"),
        ):
            assert (text, sids(store, CallQuery(text=text))) == (text, [])

    def test_search_shows_the_place(self, store: CallStore) -> None:
        store.save(RECORD)
        (found,) = store.find(CallQuery(text="EVIER chaudiere")).calls
        assert found.snippet == "Bonjour, ma chaudière fuit dans l'évier, c'est l'été."
        (named,) = store.find(CallQuery(text="lefevre")).calls
        assert named.snippet == "Lefèvre"
        assert store.find().calls[0].snippet is None

    def test_search_goes_with_filters_and_pages(self, store: CallStore) -> None:
        for number in range(6):
            turn = TurnRecord("item", "caller", f"Numéro {number % 2}")
            store.save(call(number, turns=(turn,)))
        query = CallQuery(text="numero 1", since=START + 2)
        first = store.find(query, limit=1)
        second = store.find(query, limit=1, cursor=first.cursor)
        assert [page.calls[0].record.call_sid for page in (first, second)] == ["CA005", "CA003"]
        assert second.cursor is None

    def test_words_of_an_earlier_state_are_forgotten(self, store: CallStore) -> None:
        live = replace(RECORD, status="live", ended_at=None, turns=(TurnRecord("a", "caller", "brouillon"),))
        store.save(live)
        store.save(replace(live, turns=(TurnRecord("a", "caller", "propre"),)))
        assert sids(store, CallQuery(text="brouillon")) == []
        assert sids(store, CallQuery(text="propre")) == ["CA1"]

    # The operator's status

    def test_operators_status_outlives_every_save(self, store: CallStore) -> None:
        live = replace(RECORD, status="live", ended_at=None, end_reason=None)
        store.save(live)
        before = store.stored("CA1")
        assert before is not None
        assert (before.record, before.workflow) == (live, "new")
        assert store.set_workflow("CA1", "in_progress")
        store.save(RECORD)
        after = store.stored("CA1")
        assert after is not None
        assert (after.record, after.workflow) == (RECORD, "in_progress")

    def test_status_of_no_call_and_no_status(self, store: CallStore) -> None:
        assert not store.set_workflow("CA1", "done")
        store.save(RECORD)
        assert store.set_workflow("CA1", "done")
        assert store.set_workflow("CA1", "done")
        with pytest.raises(ValueError, match="finished"):
            store.set_workflow("CA1", "finished")  # type: ignore[arg-type]  # what a client of the API may send

    # Clients

    def test_client_is_what_the_calls_say(self, store: CallStore) -> None:
        """Each field has its latest value; an address is never put together from two calls."""
        home = {"street": "3 rue des Lilas", "postcode": "69003", "city": "Lyon"}
        store.save(call(1, data=customer(first_name="Zoé", email="zoe@example.fr", address=home)))
        store.save(call(3, data=customer(first_name=None, last_name="Roux", company="Roux SARL")))
        store.save(call(2, data=customer(first_name="Zoe", last_name="Lefèvre", address={"city": "Paris"})))
        client = store.client(CALLER)
        assert client == ClientRecord(
            phone=CALLER,
            first_seen=START + 1,
            last_seen=START + 3,
            calls=3,
            last_call="CA003",
            first_name="Zoe",
            last_name="Roux",
            company="Roux SARL",
            email="zoe@example.fr",
            address={"street": None, "postcode": None, "city": "Paris"},
        )
        assert store.client(OTHER) is None

    def test_client_is_who_is_at_the_other_end(self, store: CallStore) -> None:
        """The number that was extracted stands in for a hidden one only."""
        for changes, client in (
            ({}, CALLER),
            ({"direction": "outbound-api"}, COMPANY),
            ({"from_": "anonymous", "data": customer(phone=OTHER)}, OTHER),
            ({"from_": "sip:zoe@example.fr"}, None),
            ({"data": customer(phone=OTHER)}, CALLER),
        ):
            store.save(call(1, **changes))
            assert [known.phone for known in store.clients().clients] == ([client] if client else [])

    def test_call_that_turns_out_to_be_anothers_changes_both_clients(self, store: CallStore) -> None:
        hidden = call(1, from_="anonymous", data=customer(phone=OTHER))
        store.save(hidden)
        store.save(replace(hidden, data=customer(phone=CALLER)))
        assert [known.phone for known in store.clients().clients] == [CALLER]

    def test_clients_come_in_pages(self, store: CallStore) -> None:
        for number in range(5):
            store.save(call(number, from_=f"+3360000000{number}"))
        store.save(call(9, from_="+33600000001"))
        seen: list[str] = []
        cursor = None
        for _ in range(3):
            page = store.clients(limit=2, cursor=cursor)
            seen += [client.phone[-1] for client in page.clients]
            cursor = page.cursor
        assert seen == ["1", "4", "3", "2", "0"]
        assert cursor is None

    def test_calls_of_one_number_saved_at_once_make_the_right_client(self, store: CallStore) -> None:
        """Eight threads, each with live states, the end and the data of its calls."""

        def calls(worker: int) -> Callable[[], None]:
            def work() -> None:
                for number in range(worker, 40, 8):
                    ended = call(number)
                    store.save(replace(ended, status="live", ended_at=None, end_reason=None))
                    store.save(ended)
                    store.save(replace(ended, data=customer(first_name=f"Nom {number}")))

            return work

        at_once(*map(calls, range(8)))
        expected = ClientRecord(CALLER, START, START + 39, 40, "CA039", first_name="Nom 39")
        assert store.client(CALLER) == expected
        assert len(sids(store)) == 40

    def test_calls_saved_and_deleted_at_once_leave_the_right_client(self, store: CallStore) -> None:
        def calls(worker: int) -> Callable[[], None]:
            def work() -> None:
                for number in range(worker, 16, 4):
                    store.save(call(number, data=customer(email=f"{number}@example.fr")))
                    if number % 3:
                        store.delete(f"CA{number:03}")

            return work

        at_once(*map(calls, range(4)))
        expected = ClientRecord(CALLER, START, START + 15, 6, "CA015", email="15@example.fr")
        assert store.client(CALLER) == expected

    def test_one_call_saved_at_once_by_several_is_one_call(self, store: CallStore) -> None:
        def work() -> None:
            store.save(replace(RECORD, status="live", ended_at=None, end_reason=None))
            store.save(RECORD)

        at_once(*[work] * 6)
        assert store.recent(10) == [RECORD]
        client = store.client(CALLER)
        assert client is not None
        assert client.calls == 1

    # Deletion and erasure

    def test_deleted_call_takes_what_it_said_with_it(self, store: CallStore) -> None:
        store.save(call(1, data=customer(first_name="Zoé")))
        store.save(call(2, data=customer(first_name="Chloé", email="c@example.fr")))
        assert store.delete("CA002")
        assert store.client(CALLER) == ClientRecord(
            CALLER, START + 1, START + 1, 1, "CA001", first_name="Zoé"
        )
        assert store.delete("CA001")
        assert not store.delete("CA001")
        assert store.client(CALLER) is None
        assert sids(store, CallQuery(text="zoe")) == []

    def test_erasure_reports_what_it_removed(self, store: CallStore) -> None:
        """Gone are calls from the number, calls to it, and those whose customer gave it."""
        store.save(call(1, data=customer(first_name="Zoé")))
        store.save(call(2, from_=COMPANY, to=CALLER, direction="outbound-api"))
        store.save(call(3, from_=OTHER, data=customer(phone=CALLER, first_name="Zoé")))
        store.save(call(4, from_=OTHER, data=customer(first_name="Paul")))
        store.save(call(5, from_="+33600000001"))
        report = store.erase(CALLER)
        assert report == ErasureReport(CALLER, ("CA003", "CA002", "CA001"), (CALLER,), (OTHER,))
        assert sids(store) == ["CA005", "CA004"]
        assert store.client(CALLER) is None
        assert store.client(OTHER) == ClientRecord(OTHER, START + 4, START + 4, 1, "CA004", first_name="Paul")
        assert sids(store, CallQuery(text="zoe")) == []
        assert store.erase(CALLER) == ErasureReport(CALLER, (), (), ())

    def test_erasure_of_our_own_number_leaves_the_calls_that_came_in(self, store: CallStore) -> None:
        store.save(RECORD)
        assert store.erase(COMPANY).calls == ()
        assert store.get("CA1") == RECORD

    def test_erasure_of_what_is_no_number(self, store: CallStore) -> None:
        store.save(call(1, from_="sip:zoe@example.fr"))
        assert store.erase("sip:zoe@example.fr").calls == ("CA001",)

    # Statistics

    def test_statistics(self, store: CallStore) -> None:
        quote = {"request": {"type": "quote"}}
        store.save(call(0, data=quote, ended_at=START + 30))
        store.save(call(1, data=quote, ended_at=START + 21, end_reason="caller_hung_up"))
        store.save(call(2, started_at=START + 6 * 3600, status="live", ended_at=None, end_reason=None))
        store.save(call(3, started_at=START - DAY, ended_at=START - DAY + 1.5))
        store.set_workflow("CA003", "archived")
        figures = store.statistics(zone=ZoneInfo("Europe/Paris"))
        assert figures.calls == 4
        assert figures.by_day == {"2030-03-16": 1, "2030-03-17": 2, "2030-03-18": 1}
        assert {hour: calls for hour, calls in enumerate(figures.by_hour) if calls} == {0: 1, 18: 3}
        assert figures.by_request_type == {"quote": 2, "unknown": 2}
        assert figures.by_status == {"ended": 3, "live": 1}
        assert figures.by_end_reason == {"goodbye": 2, "caller_hung_up": 1}
        assert figures.by_workflow == {"new": 3, "archived": 1}
        assert (figures.total_ms, figures.mean_ms, figures.longest_ms) == (51_500, 51_500 / 3, 30_000)

    def test_statistics_of_a_span(self, store: CallStore) -> None:
        for number in range(4):
            store.save(call(number))
        zone = timezone(timedelta(hours=5, minutes=45))
        figures = store.statistics(since=START + 1, until=START + 3, zone=zone)
        assert figures.calls == 2
        assert figures.by_hour[23] == 2
        nothing = store.statistics(until=START, zone=zone)
        assert (nothing.calls, nothing.by_day, nothing.mean_ms, nothing.longest_ms) == (0, {}, None, None)

    # Retention

    def test_purge_removes_calls_whose_days_are_over_and_what_they_said(self, opened: Opener) -> None:
        store = opened(retention_days=30)
        now = 4_000_000_000.0  # far in the future: no server drops them by itself meanwhile
        for number, age in enumerate((31, 30, 29)):
            store.save(
                call(
                    number, started_at=now - age * DAY, data=customer(first_name=f"{age}", email=f"{number}")
                )
            )
        store.save(call(3, started_at=now - 40 * DAY, from_=OTHER))
        assert store.purge(now) == 3
        assert sids(store) == ["CA002"]
        at = now - 29 * DAY
        assert store.client(CALLER) == ClientRecord(CALLER, at, at, 1, "CA002", first_name="29", email="2")
        assert store.client(OTHER) is None
        assert store.purge(now) == 0

    def test_without_retention_nothing_is_purged(self, store: CallStore) -> None:
        store.save(RECORD)
        assert store.purge(START + 10_000 * DAY) == 0
        assert store.get("CA1") == RECORD

    def test_retention_that_was_changed_counts_for_what_is_there(self, opened: Opener) -> None:
        first = opened()
        far = 4_000_000_000.0
        first.save(call(1, started_at=far))
        first.close()
        second = opened(retention_days=1)
        assert second.purge(far + DAY - 1) == 0
        assert second.purge(far + DAY) == 1
        assert second.clients().clients == ()

    # The end

    def test_what_is_saved_is_there_after_opening_again(self, opened: Opener) -> None:
        first = opened()
        first.save(RECORD)
        second = opened()
        assert second.get("CA1") == RECORD
        first.close()
        assert second.get("CA1") == RECORD

    def test_closed_store_says_so(self, store: CallStore) -> None:
        store.save(RECORD)
        store.close()
        store.close()
        for work in (
            lambda: store.save(call(1)),
            lambda: store.get("CA1"),
            store.find,
            lambda: store.statistics(zone=UTC),
            lambda: store.client(CALLER),
            lambda: store.erase(CALLER),
        ):
            with pytest.raises(CallStoreUnavailable, match="closed"):
                work()
