"""What a call store is asked and answers; for the stores see `test_store_sqlite`, `test_store_mongo`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.store.calls import (
    CallStore,
    CallStoreError,
    CallStoreUnavailable,
    IndexConflict,
    RecordRefused,
    Workflow,
    check_workflow,
    from_cursor,
    to_cursor,
)
from handlehome.store.datadir import StoreError
from handlehome.store.mongo import MongoCallStore
from handlehome.store.sqlite import SqliteCallStore


def test_both_stores_are_call_stores() -> None:
    """The type checker holds it; this holds their names."""
    stores: list[type[CallStore]] = [SqliteCallStore, MongoCallStore]
    asked = {name for name in vars(CallStore) if not name.startswith("_")}
    assert all(asked <= set(dir(store)) for store in stores)


def test_what_can_be_tried_again_is_told_from_what_cannot() -> None:
    assert issubclass(CallStoreError, StoreError)
    assert issubclass(IndexConflict, CallStoreUnavailable)
    assert not issubclass(RecordRefused, CallStoreUnavailable)
    assert not issubclass(CallStoreUnavailable, RecordRefused)


@given(st.integers(-(10**12), 10**13 - 1), st.text(min_size=1))
def test_cursor_leads_back_to_its_place(at_ms: int, key: str) -> None:
    assert from_cursor(to_cursor(at_ms, key)) == (at_ms, key)


@pytest.mark.parametrize(
    "cursor", ["", ".", "12", "12.", ".CA1", "x.CA1", "1" * 14 + ".CA1", "١.CA1", " 1.CA1"]
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match="is no cursor"):
        from_cursor(cursor)


def test_operators_statuses() -> None:
    known: list[Workflow] = ["new", "in_progress", "done", "archived"]
    for workflow in known:
        check_workflow(workflow)
    with pytest.raises(ValueError, match="new, in_progress, done, archived"):
        check_workflow("ended")
