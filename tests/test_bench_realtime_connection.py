"""Messages reach the session in order, however they are framed."""

import asyncio
import json

from websockets.asyncio.client import connect

from handlehome.bench.realtime.script import Script
from handlehome.bench.realtime.server import RealtimeSimulator


async def test_fragmented_and_whole_messages_keep_their_order() -> None:
    async with RealtimeSimulator(Script()) as simulator:
        headers = {"Authorization": "Bearer k"}
        async with connect(simulator.url + "?model=m", additional_headers=headers, proxy=None) as websocket:
            for number in range(20):
                message = json.dumps(
                    {"type": "response.cancel", "event_id": f"é{number}"}, ensure_ascii=False
                )
                if number % 5 == 4:
                    await websocket.send([message[:10], message[10:15], message[15:]])
                else:
                    await websocket.send(message)
            await asyncio.wait_for(websocket.recv(), 5)
            seen = [json.loads(await asyncio.wait_for(websocket.recv(), 5)) for _ in range(20)]
        assert [event["error"]["event_id"] for event in seen] == [f"é{number}" for number in range(20)]


async def test_a_binary_message_is_refused_in_its_place() -> None:
    async with RealtimeSimulator(Script()) as simulator:
        headers = {"Authorization": "Bearer k"}
        async with connect(simulator.url + "?model=m", additional_headers=headers, proxy=None) as websocket:
            await websocket.send(json.dumps({"type": "response.cancel"}))
            await websocket.send(b'{"type":"response.cancel"}')
            await websocket.send(json.dumps({"type": "response.cancel"}))
            await asyncio.wait_for(websocket.recv(), 5)
            codes = [
                json.loads(await asyncio.wait_for(websocket.recv(), 5))["error"]["code"] for _ in range(3)
            ]
        assert codes == ["response_cancel_not_active", "invalid_event", "response_cancel_not_active"]
