"""The replies of the benchmark's upstream as bytes: as the site writes them, and as OpenAI's chat completions. Pure.

Every event carries the microsecond of CLOCK_MONOTONIC at which it was due, after an `@`: sixteen digits.
"""

from dataclasses import dataclass
from typing import Final

MODEL: Final = "qwen3.7-plus"
RESPONSE_ID: Final = "bceb5c39-c6ae-4fee-a0f9-8df8afd67ca9"

STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"x-actual-status-code: 200\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
)


def chunk(payload: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 §7.1)."""
    return b"%x\r\n%s\r\n" % (len(payload), payload)


@dataclass(frozen=True, slots=True)
class Writing:
    """How a server writes a streamed reply.

    opening: what stands before the events; `$CHAT` in it is the chat's id. event: with `%s` where the stamp goes.
    end: all chunks behind the events, with the one that ends the body.
    """

    opening: bytes
    event: bytes
    end: bytes

    def opened(self, chat_id: bytes) -> bytes:
        """The head of the answer, and the chunk before the events."""
        return STREAM_HEAD + chunk(self.opening.replace(b"$CHAT", chat_id))

    def events_at(self, due: int, count: int, chunk_bytes: int) -> bytes:
        """`count` events of one due time: each in a chunk of its own, or, above 0, in chunks of `chunk_bytes`."""
        event = self.event % (b"%016d" % due)
        if not chunk_bytes:
            return chunk(event) * count
        body = event * count
        return b"".join(chunk(body[start : start + chunk_bytes]) for start in range(0, len(body), chunk_bytes))


# Upstream protocol §4.4: usage in every frame, a finished mark, no `[DONE]`.
_SITE_CREATED: Final = (
    'data: {"response.created":{"chat_id": "$CHAT", "parent_id": "09897e80-02f2-4786-90b5-23e83e0c8a99",'
    ' "response_id":"' + RESPONSE_ID + '", "response_index": "0"}}\n\n'
).encode()
_SITE_EVENT: Final = (
    'data: {"choices": [{"delta": {"role": "assistant", "content": "@%s token", "phase": "answer",'
    ' "status": "typing"}}], "response_id": "' + RESPONSE_ID + '", "usage": {"input_tokens": 827,'
    ' "output_tokens": 90, "total_tokens": 917, "output_tokens_details": {"reasoning_tokens": 83,'
    ' "text_tokens": 90}}, "timestamp": 1790000007}\n\n'
).encode()
_SITE_FINISHED: Final = (
    'data: {"choices": [{"delta": {"content": "", "role": "assistant", "status": "finished", "phase": "answer"}}],'
    ' "response_id": "' + RESPONSE_ID + '"}\n\n'
).encode()
SITE: Final = Writing(
    opening=_SITE_CREATED,
    event=_SITE_EVENT,
    end=chunk(_SITE_FINISHED) + b"0\r\n\r\n",
)

# OpenAI's API reference, "Chat Completions", streaming with `include_usage`, and the answer in one piece.
_API_HEAD: Final = (
    '{"id":"chatcmpl-CwQ1b0f8kJv3oGm2Hq9ZtLxYdR5sN","object":"%s","created":1790000007,"model":"' + MODEL + '",'
    '"service_tier":"default","system_fingerprint":"fp_3f58d112f7",'
)
_API_USAGE: Final = (
    '{"prompt_tokens":827,"completion_tokens":90,"total_tokens":917,"prompt_tokens_details":{"cached_tokens":0,'
    '"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)


def _api_frame(delta: str, finish_reason: str = "null") -> bytes:
    head = "data: " + _API_HEAD % "chat.completion.chunk"
    choice = f'"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}}}]'
    return f'{head}{choice},"usage":null,"obfuscation":"nV7wq3"}}\n\n'.encode()


_API_COUNTED: Final = (
    "data: " + _API_HEAD % "chat.completion.chunk" + f'"choices":[],"usage":{_API_USAGE},"obfuscation":"Jx2"}}\n\n'
).encode()
API: Final = Writing(
    opening=_api_frame('{"role":"assistant","content":"","refusal":null}'),
    event=_api_frame('{"content":"@%s token"}'),
    end=chunk(_api_frame("{}", '"stop"')) + chunk(_API_COUNTED) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
)


def api_whole(due: int) -> bytes:
    """The body of an answer in one piece, with one event."""
    message = f'{{"role":"assistant","content":"@{due:016d} token","refusal":null,"annotations":[]}}'
    choice = f'"choices":[{{"index":0,"message":{message},"logprobs":null,"finish_reason":"stop"}}]'
    return (_API_HEAD % "chat.completion" + f'{choice},"usage":{_API_USAGE}}}').encode()
