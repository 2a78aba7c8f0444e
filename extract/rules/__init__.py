"""Rules-only extraction, for when no model answers."""

from handlehome.extract.rules.assemble import extract

__all__ = ["extract"]
