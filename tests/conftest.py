"""What all tests share: every coroutine test runs on uvloop, as the daemon does."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Gives pytest-asyncio the daemon's own kind of loop."""
    return {"uvloop": uvloop.new_event_loop}
