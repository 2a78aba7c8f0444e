"""The API's refusals: an HTTP status and the error object that comes with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INVALID_REQUEST = "invalid_request_error"


class ApiError(Exception):
    """A request is refused.

    Args:
        status: HTTP status.
        message: For people.
        kind: The error's `type`.
        param: What of the request is wrong, where one thing is.
        code: For programs; None where the API gives none.
        headers: Sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def missing(param: str) -> ApiError:
    """A parameter that has to be there is not."""
    message = f"Missing required parameter: '{param}'."
    return ApiError(400, message, param=param, code="missing_required_parameter")


def unknown(param: str) -> ApiError:
    """A parameter that the API doesn't know."""
    return ApiError(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")


def wrong_type(param: str, expected: str, value: object) -> ApiError:
    """A parameter of the wrong JSON type; `expected` with its article ("a string")."""
    message = f"Invalid type for '{param}': expected {expected}, but got {_named(value)} instead."
    return ApiError(400, message, param=param, code="invalid_type")


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """A parameter whose value can't be."""
    return ApiError(400, message, param=param, code=code)


def no_key() -> ApiError:
    """There is no `Authorization: Bearer`."""
    message = (
        "You didn't provide an API key. You need to provide it in an Authorization header using Bearer auth."
    )
    return ApiError(401, message)


def wrong_key(key: str) -> ApiError:
    """The key is not known. The message shows a bit of it, as the API's does."""
    shown = f"{key[:3]}***{key[-4:]}" if len(key) > 12 else "***"
    return ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")


def no_model(model: str, param: str | None = None) -> ApiError:
    """The model doesn't exist, or not for this key.

    That the status is 404 is not verified. Some endpoints of the API are known to answer 400 with this code.
    """
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ApiError(404, message, param=param, code="model_not_found")


def _named(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a decimal number",
        str: "a string",
        list: "an array",
    }
    return "null" if value is None else names.get(type(value), "an object")
