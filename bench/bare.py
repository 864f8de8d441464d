"""The reference: a bare aiohttp proxy that makes the product's upstream calls and translates nothing.

For each `POST /v1/chat/completions` it opens a chat, asks for the completion (upstream protocol §3.1, §4.1, with the
ordinary headers of §9.1) and deletes the chat in the background (§3.5). The body of the completion is fixed, with the
chat's id and the prompt spliced in; the bytes of the stream are copied as they come, one write a read. No key, no
account, no parsing of events: what is left is what any aiohttp proxy has to pay.

`python -m bench.bare --port 9001 --upstream http://127.0.0.1:9000`; prints `ready` once it listens.
"""

import argparse
import asyncio
import json
import uuid

import aiohttp
import uvloop
from aiohttp import web

MODEL = "qwen3.7-plus"
UPSTREAM_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Language": "en-US,en;q=0.9",
    "Accept-Encoding": "gzip, deflate",
    "Cookie": "token=" + "x" * 209,
    "source": "web",
    "version": "0.2.91",
    "timezone": "Tue Sep 22 2026 04:13:35 GMT+0800",
    "X-Accel-Buffering": "no",
    "User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0",
    "sec-ch-ua": '"Chromium";v="149", "Google Chrome";v="149", "Not)A;Brand";v="24"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Windows"',
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
}
NEW_CHAT = json.dumps(
    {"chatId": "", "models": [MODEL], "project_id": "", "timestamp": 0, "chat_type": "t2t", "chat_mode": "normal"}
).encode()
FEATURES = {"thinking_enabled": False, "output_schema": "phase", "research_mode": "normal", "auto_thinking": False,
            "thinking_mode": "Fast", "auto_search": False}  # fmt: skip
MESSAGE = {"id": None, "fid": "a2b5c7d9-1f2e-4d3c-8b4a-5e6f7a8b9c0d", "parentId": None, "parent_id": None,
           "childrenIds": [], "role": "user", "content": "$TEXT", "user_action": "chat", "files": [],
           "timestamp": 1790000000, "models": [MODEL], "model": "", "chat_type": "t2t", "sub_chat_type": "t2t",
           "feature_config": FEATURES, "extra": {"meta": {"subChatType": "t2t"}}}  # fmt: skip
COMPLETION = json.dumps(
    {"stream": True, "version": "2.1", "incremental_output": True, "chatId": "$CHAT", "chat_id": "$CHAT",
     "parentId": "", "parent_id": None, "chat_mode": "normal", "model": MODEL, "messages": [MESSAGE],
     "timestamp": 1790000000}
)  # fmt: skip


class BareProxy:
    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base
        self._deletions: set[asyncio.Task[None]] = set()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Three upstream calls, the bytes of the second copied through."""
        text = json.loads(await request.read())["messages"][-1]["content"]
        async with self._session.post(
            f"{self._base}/api/v2/chats/new", data=NEW_CHAT, headers=self._headers("/c/new-chat")
        ) as created:
            chat_id = json.loads(await created.read())["data"]["id"]
        body = COMPLETION.replace("$CHAT", chat_id).replace('"$TEXT"', json.dumps(text)).encode()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        try:
            async with self._session.post(
                f"{self._base}/api/v2/chat/completions?chat_id={chat_id}",
                data=body,
                headers=self._headers(f"/c/{chat_id}"),
            ) as upstream:
                await response.prepare(request)
                while piece := await upstream.content.readany():
                    await response.write(piece)
            await response.write_eof()
        finally:
            deletion = asyncio.create_task(self._delete(chat_id))
            self._deletions.add(deletion)
            deletion.add_done_callback(self._deletions.discard)
        return response

    async def _delete(self, chat_id: str) -> None:
        async with self._session.delete(
            f"{self._base}/api/v2/chats/{chat_id}", headers=self._headers(f"/c/{chat_id}")
        ) as deleted:
            await deleted.read()

    def _headers(self, page: str) -> dict[str, str]:
        return UPSTREAM_HEADERS | {
            "Origin": self._base, "Referer": self._base + page, "x-request-id": str(uuid.uuid4()),
        }  # fmt: skip


async def serve(port: int, upstream: str) -> None:
    timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout
    ) as session:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", BareProxy(session, upstream).chat)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--upstream", required=True)
    options = arguments.parse_args()
    uvloop.run(serve(options.port, options.upstream))
