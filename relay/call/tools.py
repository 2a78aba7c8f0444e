"""What the assistant can do besides talking."""

from __future__ import annotations

from typing import Any

END_CALL: dict[str, Any] = {
    "type": "function",
    "name": "end_call",
    "description": "Hang up. Call this after having said goodbye, when the caller needs nothing more.",
    "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
}

TOOLS: list[dict[str, Any]] = [END_CALL]
