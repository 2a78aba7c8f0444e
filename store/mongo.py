"""The call store in MongoDB: collections `calls` and `clients`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, timedelta, tzinfo
from typing import Any, Final

from bson.codec_options import CodecOptions
from bson.errors import BSONError
from pymongo import ASCENDING, DESCENDING, MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern

from handlehome.store import clients, search
from handlehome.store import mongo_documents as documents
from handlehome.store.calls import (
    EVERY_CALL,
    CallPage,
    CallQuery,
    CallStoreError,
    CallStoreUnavailable,
    ClientPage,
    ErasureReport,
    IndexConflict,
    RecordRefused,
    StoredCall,
    Workflow,
    check_workflow,
)
from handlehome.store.clients import ClientRecord
from handlehome.store.records import CallRecord
from handlehome.store.statistics import SLICE_MS, CallStatistics, summed_up

__all__ = ["MongoCallStore"]

DATABASE: Final = "handlehome"  # where the URI names none
# Milliseconds. Each bounds a part of an operation, and pymongo tries a part again at most once.
SELECTION_MS, CONNECT_MS, SOCKET_MS, WRITE_MS = 3_000, 3_000, 10_000, 5_000
SAVE_ATTEMPTS: Final = 5
SETTLE_ATTEMPTS: Final = 100
PURGE_CALLS: Final = 500  # calls per deletion

# Server error codes that speak of the document and not of the server: BadValue, FailedToParse, TypeMismatch,
# Overflow (nested too deep), InvalidBSON, DollarPrefixedFieldName, EmptyFieldName, DottedFieldName,
# DocumentValidationFailure, TransactionTooLargeForCache, BSONObjectTooLarge and two more of its kind.
REFUSALS: Final = frozenset({2, 9, 14, 15, 22, 52, 56, 57, 121, 388, 10334, 17419, 17420})
INDEX_CONFLICTS: Final = frozenset(
    {67, 85, 86}
)  # CannotCreateIndex, IndexOptionsConflict, IndexKeySpecsConflict

_Document = dict[str, Any]


class MongoCallStore:
    """A call store in MongoDB, shared by any number of daemons.

    Writes are acknowledged by the majority of the replica set, from its journals; a single server will do.
    Nothing here needs transactions, so that it may be one without a replica set. A record may be as large as
    a document, 16 MB.

    With retention, the server itself drops calls and clients when their days are over; `purge` brings the
    clients of dropped calls up to date, and what is stored under another number of days.
    """

    def __init__(self, uri: str, *, retention_days: int | None = None) -> None:
        """Prepares the client; no server need be there. It is connected to when it is first needed.

        Args:
            uri: `mongodb://` or `mongodb+srv://`; the database is the one that it names, else `handlehome`.
                What it says of timeouts, write concern and read preference does not count.
            retention_days: how long a call is kept, from its start; None: for ever.

        Raises:
            CallStoreError: the URI is no such.
        """
        try:
            self._client: MongoClient[_Document] = MongoClient(
                uri,
                connect=False,
                appname="handlehome",
                serverSelectionTimeoutMS=SELECTION_MS,
                connectTimeoutMS=CONNECT_MS,
                socketTimeoutMS=SOCKET_MS,
            )
            database = self._client.get_default_database(
                DATABASE,
                codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
                read_preference=ReadPreference.PRIMARY,
                write_concern=WriteConcern("majority", j=True, wtimeout=WRITE_MS),
                read_concern=ReadConcern("local"),  # on the primary: our own writes are seen
            )
        except (PyMongoError, ValueError) as error:
            # What is wrong with it may be told by quoting it, password and all.
            detail = "" if "@" in uri else f": {error}"
            raise CallStoreError(f"MONGO_URI is no address of a MongoDB{detail}") from None
        self._calls: Collection[_Document] = database["calls"]
        self._clients: Collection[_Document] = database["clients"]
        self._retention = None if retention_days is None else timedelta(days=retention_days)
        self._indexed = False

    def save(self, record: CallRecord) -> None:
        """See `CallStore.save`."""
        try:
            document = documents.call_document(record, self._retention)
        except (ValueError, OverflowError, OSError, RecursionError) as error:
            raise _refused(record, error) from error
        with self._server():
            try:
                self._put(record, document)
            except OperationFailure as error:
                if error.code not in REFUSALS:
                    raise
                raise _refused(record, error) from error
            except (BSONError, UnicodeError, OverflowError, RecursionError) as error:
                raise _refused(record, error) from error

    def get(self, call_sid: str) -> CallRecord | None:
        """See `CallStore.get`."""
        call = self.stored(call_sid)
        return None if call is None else call.record

    def stored(self, call_sid: str) -> StoredCall | None:
        """See `CallStore.stored`."""
        with self._server():
            document = self._calls.find_one({"_id": call_sid}, {"words": False})
        return None if document is None else documents.stored_call(document)

    def find(self, query: CallQuery = EVERY_CALL, *, limit: int = 50, cursor: str | None = None) -> CallPage:
        """See `CallStore.find`."""
        conditions = documents.conditions(query)
        if cursor is not None:
            conditions.append(documents.behind(cursor, "started_at"))
        found = self._page(self._calls, conditions, "started_at", limit)
        wanted = search.words(query.text or "")
        calls = tuple(documents.stored_call(document, wanted) for document in found[:limit])
        return CallPage(calls, documents.cursor_behind(found, "started_at", limit))

    def recent(self, limit: int = 50) -> list[CallRecord]:
        """See `CallStore.recent`."""
        return [call.record for call in self.find(limit=limit).calls]

    def set_workflow(self, call_sid: str, workflow: Workflow) -> bool:
        """See `CallStore.set_workflow`."""
        check_workflow(workflow)
        with self._server():
            done = self._calls.update_one({"_id": call_sid}, {"$set": {"workflow": workflow}})
        return done.matched_count > 0

    def delete(self, call_sid: str) -> bool:
        """See `CallStore.delete`."""
        with self._server():
            return bool(self._remove({"_id": call_sid}))

    def erase(self, phone: str) -> ErasureReport:
        """See `CallStore.erase`."""
        with self._server():
            known = {phone} if self._clients.find_one({"_id": phone}, {"_id": True}) else set()
            calls = self._remove({"$and": documents.conditions(CallQuery(phone=phone))})
            known |= documents.clients_of(calls)
            left = {client for client in known if self._settle(client)}
        return ErasureReport(
            phone,
            tuple(call["_id"] for call in calls),
            tuple(sorted(known - left)),
            tuple(sorted(left)),
        )

    def statistics(
        self, *, since: float | None = None, until: float | None = None, zone: tzinfo
    ) -> CallStatistics:
        """See `CallStore.statistics`."""
        conditions = documents.conditions(CallQuery(since=since, until=until))
        start_ms = {"$toLong": "$started_at"}
        same = {
            "start": {"$subtract": [start_ms, {"$mod": [start_ms, SLICE_MS]}]},
            "type": {"$ifNull": ["$request_type", None]},
            "status": "$status",
            "reason": "$end_reason",
            "workflow": "$workflow",
        }
        timed = {"$cond": [{"$isNumber": "$duration_ms"}, 1, 0]}
        with self._server():
            rows = list(
                self._calls.aggregate(
                    [
                        {"$match": {"$and": conditions} if conditions else {}},
                        {
                            "$group": {
                                "_id": same,
                                "calls": {"$sum": 1},
                                "timed": {"$sum": timed},
                                "total": {"$sum": "$duration_ms"},
                                "longest": {"$max": "$duration_ms"},
                            }
                        },
                    ]
                )
            )
        return summed_up(map(documents.group, rows), zone)

    def client(self, phone: str) -> ClientRecord | None:
        """See `CallStore.client`."""
        with self._server():
            document = self._clients.find_one({"_id": phone})
        return None if document is None else documents.client_record(document)

    def clients(self, *, limit: int = 50, cursor: str | None = None) -> ClientPage:
        """See `CallStore.clients`."""
        conditions = [] if cursor is None else [documents.behind(cursor, "last_seen")]
        found = self._page(self._clients, conditions, "last_seen", limit)
        return ClientPage(
            tuple(map(documents.client_record, found[:limit])),
            documents.cursor_behind(found, "last_seen", limit),
        )

    def purge(self, now: float) -> int:
        """See `CallStore.purge`; what the server has dropped by itself is not counted."""
        with self._server():
            self._redate(self._calls, "started_at")
            self._redate(self._clients, "last_seen")
            if self._retention is None:
                return 0
            over = {"$lte": documents.to_date(now) - self._retention}
            removed = 0
            while calls := self._remove({"started_at": over}, limit=PURGE_CALLS):
                removed += len(calls)
            for client in self._clients.find({"first_seen": over}, {"_id": True}):
                self._settle(client["_id"])  # its first call the server has dropped
        return removed

    def close(self) -> None:
        """See `CallStore.close`; the second time nothing happens."""
        self._client.close()

    @contextlib.contextmanager
    def _server(self) -> Iterator[None]:
        """Names what goes wrong; the indexes are there within."""
        try:
            self._ensure_indexes()
            yield
        except InvalidOperation as error:
            raise CallStoreUnavailable("the store is closed") from error
        except ConfigurationError as error:
            raise CallStoreUnavailable(f"MongoDB can't be used as MONGO_URI says: {_short(error)}") from error
        except (PyMongoError, OSError) as error:
            raise CallStoreUnavailable(
                f"MongoDB can't do it now ({type(error).__name__}): {_short(error)}"
            ) from error

    def _ensure_indexes(self) -> None:
        if self._indexed:  # no lock: to make them twice does no harm, to wait for a thread that waits does
            return
        for collection, indexes in (
            (self._calls, documents.CALL_INDEXES),
            (self._clients, documents.CLIENT_INDEXES),
        ):
            try:
                collection.create_indexes(indexes)
            except OperationFailure as error:
                if error.code not in INDEX_CONFLICTS:
                    raise
                raise IndexConflict(
                    f"MongoDB's collection {collection.full_name} has an index that is not as it must be; "
                    f"drop that one: {_short(error)}"
                ) from error
        self._indexed = True

    def _put(self, record: CallRecord, document: _Document) -> None:
        identity = {"_id": document.pop("_id")}
        ended = record.status == "ended"
        change: _Document = {"$set": document, "$setOnInsert": {"workflow": "new"}}
        if "expires_at" not in document:
            change["$unset"] = {"expires_at": ""}
        # Of a call that has ended this matches nothing, and the insertion that follows finds it there.
        target = identity if ended else {**identity, "status": {"$ne": "ended"}}
        before = None
        for _ in range(SAVE_ATTEMPTS):
            try:
                before = self._calls.find_one_and_update(
                    target, change, {"client": True, "started_at": True, "data": True}, upsert=True
                )
                break
            except DuplicateKeyError:  # or else another save of this new call was quicker
                if not ended and self._calls.find_one({**identity, "status": "ended"}, {"_id": True}):
                    return
        else:
            raise CallStoreUnavailable(f"{self._calls.full_name} has a unique index that {identity} violates")
        after = {**document, **identity}
        # While a call lives it is saved every second: its client is looked at when something changes for it.
        if ended or before is None or documents.said_of_client(before) != documents.said_of_client(after):
            for client in {document["client"], before and before.get("client")}:
                if client is not None:
                    self._settle(client)

    def _page(
        self, collection: Collection[_Document], conditions: list[_Document], time: str, limit: int
    ) -> list[_Document]:
        """One document more than the limit, if there are so many."""
        if limit <= 0:
            return []
        with self._server():
            found = collection.find({"$and": conditions} if conditions else {}, {"words": False})
            return list(found.sort([(time, DESCENDING), ("_id", DESCENDING)]).limit(limit + 1))

    def _remove(self, condition: _Document, *, limit: int = 0) -> list[_Document]:
        """Removes calls, and what only they said of their clients; returns `_id` and `client` of each."""
        calls = list(self._calls.find(condition, {"client": True}).sort(documents.LATEST_FIRST).limit(limit))
        if calls:
            identities = [call["_id"] for call in calls]
            # The clients first: should we die in between, the calls are there to begin again with.
            for client in documents.clients_of(calls):
                self._put_client(client, self._digest_of(client, identities))
            self._calls.delete_many({"_id": {"$in": identities}})
            for client in documents.clients_of(calls):
                self._settle(client)
        return calls

    def _settle(self, phone: str) -> bool:
        """Makes a client what the calls say; returns whether there is one.

        Each write puts a whole document. Whoever writes looks again afterwards, until what is there is what
        the calls say: so of all who change the calls of a number at the same time, the last one to write
        leaves the truth behind.
        """
        for _ in range(SETTLE_ATTEMPTS):
            wanted = self._digest_of(phone)
            if self._clients.find_one({"_id": phone}) == wanted:
                return wanted is not None
            self._put_client(phone, wanted)
        raise CallStoreUnavailable(
            f"the calls of a client changed {SETTLE_ATTEMPTS} times while it was saved"
        )

    def _put_client(self, phone: str, document: _Document | None) -> None:
        if document is None:
            self._clients.delete_one({"_id": phone})
            return
        # Another one may have put it there in the meantime: then that one's stands.
        with contextlib.suppress(DuplicateKeyError):
            self._clients.replace_one({"_id": phone}, document, upsert=True)

    def _digest_of(self, phone: str, without: Sequence[str] = ()) -> _Document | None:
        """The client as its calls have it, some of them left out; None when there is no other."""
        theirs: _Document = {"client": phone, "_id": {"$nin": list(without)}}
        count = self._calls.count_documents(theirs)
        last = self._calls.find_one(theirs, {"started_at": True}, sort=documents.LATEST_FIRST)
        first = self._calls.find_one(theirs, {"started_at": True}, sort=[("started_at", ASCENDING)])
        if last is None or first is None:
            return None
        said = self._calls.find(
            {**theirs, "data.customer": {"$type": "object"}},
            {"data.customer": True},
            sort=documents.LATEST_FIRST,
        )
        with said:
            known = clients.latest(clients.contact(document["data"]) for document in said)
        digest = {
            "_id": phone,
            "first_seen": first["started_at"],
            "last_seen": last["started_at"],
            "calls": count,
            "last_call": last["_id"],
            **{name: known.get(name) for name in clients.CONTACT_FIELDS},
        }
        if self._retention is not None:
            digest["expires_at"] = last["started_at"] + self._retention
        return digest

    def _redate(self, collection: Collection[_Document], time: str) -> None:
        """Has documents that were stored under another number of days expire as they should now."""
        if self._retention is None:
            collection.update_many({"expires_at": {"$exists": True}}, {"$unset": {"expires_at": ""}})
            return
        ms = round(self._retention.total_seconds() * 1000)
        due = {"$add": [f"${time}", ms]}
        collection.update_many({"$expr": {"$ne": ["$expires_at", due]}}, [{"$set": {"expires_at": due}}])


def _refused(record: CallRecord, error: Exception) -> RecordRefused:
    return RecordRefused(f"MongoDB can't store the record of {record.call_sid}: {_short(error)}")


def _short(error: Exception) -> str:
    """What went wrong, without the state of the whole replica set and the server's whole answer."""
    return re.split(r" \(configured timeouts|, Timeout:|, full error", str(error))[0][:300]
