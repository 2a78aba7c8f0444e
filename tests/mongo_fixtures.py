"""A real MongoDB for tests: one mongod per test process, one database per test.

A test module that needs it says `pytest_plugins = ["tests.mongo_fixtures"]` and asks for `mongo_uri`, and for
`mongod` when it stops and starts the server. `TEST_MONGO_URI` names a server of one's own instead: the tests
then use databases of unique names there, dropped afterwards, and those that stop the server are skipped.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.mongod import Mongod, MongodError, connected, in_database

MEMORY = Path("/dev/shm")  # syncing to it costs nothing: the tests are several times as fast
ENOUGH = 2 << 30  # bytes


@pytest.fixture(scope="session")
def _own_mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH
    with tempfile.TemporaryDirectory(
        prefix="handlehome-mongod-", dir=MEMORY if roomy else tmp_path_factory.getbasetemp()
    ) as folder:
        server = Mongod(Path(folder))
        try:
            server.start()
        except MongodError as error:
            _cannot(str(error))
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture
def mongod(request: pytest.FixtureRequest) -> Mongod:
    """A mongod that the test may stop, if it starts it again."""
    if os.environ.get("TEST_MONGO_URI"):
        pytest.skip("TEST_MONGO_URI names a server that is not ours to stop")
    server: Mongod = request.getfixturevalue("_own_mongod")
    return server


@pytest.fixture
def mongo_uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database of the test's own."""
    name = f"handlehome_test_{uuid.uuid4().hex[:12]}"
    users = os.environ.get("TEST_MONGO_URI")
    if not users:
        yield request.getfixturevalue("_own_mongod").uri(name)  # it goes with its server
        return
    uri = in_database(users, name)
    yield uri
    with connected(uri) as client:
        client.drop_database(name)


def _cannot(reason: str) -> NoReturn:
    """In CI what can't be tested has failed; on a user's machine it is skipped."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
