"""Whether the process lives (`/healthz`) and whether it should be sent new calls (`/readyz`)."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from handlehome.relay.phone.desk import Desk


def routes(desk: Desk, office: Callable[[], dict[str, Any]]) -> APIRouter:
    """The two routes. Neither needs a key: a load balancer has none, and they tell nothing about callers.

    Args:
        desk: whether it takes calls.
        office: what waits behind the scenes, in numbers.
    """
    router = APIRouter()

    async def healthz(_request: Request) -> JSONResponse:
        """200 as long as the event loop answers at all; a restart would help against nothing else.

        What waits to be written, saved and extracted stands beside it.
        """
        return JSONResponse({"status": "ok", **office()})

    async def readyz(_request: Request) -> JSONResponse:
        """200 when a new call would be accepted, else 503 with the reason."""
        reason = desk.refusing
        body: dict[str, str | bool | int] = {"ready": reason is None, "active_calls": desk.active_calls}
        if reason is None:
            return JSONResponse(body)
        return JSONResponse(body | {"reason": reason.value}, status_code=503)

    router.add_route("/healthz", healthz, methods=["GET"])
    router.add_route("/readyz", readyz, methods=["GET"])
    return router
