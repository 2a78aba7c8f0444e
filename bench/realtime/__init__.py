"""A simulated OpenAI Realtime server (the GA interface of ``/v1/realtime``), strict where the real one is.

`server.RealtimeSimulator` listens on a port; what it says comes from a `script.Script`.
"""
