"""A simulated OpenAI REST server: `/v1/responses`, `/v1/audio/transcriptions`, `/v1/models`.

It behaves like the API's documents, not like any client of ours: it checks keys, bodies, strict schemas and
audio files, answers in the API's shapes, fails on demand, and keeps every request for assertions.
"""
