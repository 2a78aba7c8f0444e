"""HandleHome: a phone relay between Twilio Media Streams and OpenAI's speech models."""

from importlib.metadata import version

__version__ = version("handlehome")
