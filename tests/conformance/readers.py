"""What a client makes of the bytes of each protocol: one line of READERS a protocol."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

Json = dict[str, Any]  # JSON enters here


class Read(Struct, frozen=True, kw_only=True):
    """A reply as a client sees it, streamed or not. `finish` is the protocol's own word, empty while there is none;
    `error` the sentence of a failure in the stream."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    sources: tuple[str, ...] = ()
    finish: str = ""
    completion_tokens: int | None = None
    error: str = ""
    ended: bool = False


class Reader(Struct, frozen=True, kw_only=True):
    """body: a request that asks for usage. stream, result: bytes to Read. error: an error body's sentence and kind."""

    body: Callable[[bool], bytes]
    stream: Callable[[bytes], Read]
    result: Callable[[bytes], Read]
    error: Callable[[bytes], tuple[str, str]]


def _openai_body(streamed: bool) -> bytes:
    fields = {"messages": [{"role": "user", "content": "hello"}], "stream": streamed}
    return msgspec.json.encode(fields | {"stream_options": {"include_usage": True}})


def _openai_stream(written: bytes) -> Read:
    text = reasoning = finish = error = ""
    calls: list[list[str]] = []
    sources: list[str] = []
    tokens: int | None = None
    *frames, rest = written.split(b"\n\n")
    assert rest == b""
    ended = frames[-1:] == [b"data: [DONE]"]
    for frame in frames[: -1 if ended else None]:
        if frame.startswith(b":"):
            continue
        assert frame.startswith(b"data: ") and b"\n" not in frame
        chunk: Json = msgspec.json.decode(frame.removeprefix(b"data: "))
        if "error" in chunk:
            error = chunk["error"]["message"]
            continue
        assert error == ""
        tokens = chunk["usage"]["completion_tokens"] if chunk["usage"] else tokens
        for choice in chunk["choices"]:
            assert finish == ""
            delta: Json = choice["delta"]
            text += delta.get("content", "")
            reasoning += delta.get("reasoning_content", "")
            sources += [each["url_citation"]["url"] for each in delta.get("annotations", [])]
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(calls)
                    calls.append([call["id"], call["function"]["name"], ""])
                calls[call["index"]][2] += call["function"]["arguments"]
            finish = choice["finish_reason"] or ""
    return Read(
        text=text,
        reasoning=reasoning,
        calls=tuple((call[0], call[1], call[2]) for call in calls),
        sources=tuple(sources),
        finish=finish,
        completion_tokens=tokens,
        error=error,
        ended=ended,
    )


def _openai_result(body: bytes) -> Read:
    reply: Json = msgspec.json.decode(body)
    (choice,) = reply["choices"]
    message: Json = choice["message"]
    return Read(
        text=message["content"] or "",
        reasoning=message.get("reasoning_content", ""),
        calls=tuple(
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls", [])
        ),
        sources=tuple(each["url_citation"]["url"] for each in message["annotations"]),
        finish=choice["finish_reason"],
        completion_tokens=reply["usage"]["completion_tokens"],
        ended=True,
    )


def _openai_error(body: bytes) -> tuple[str, str]:
    error: Json = msgspec.json.decode(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"], error["type"]


READERS: Final = {
    "openai_chat": Reader(body=_openai_body, stream=_openai_stream, result=_openai_result, error=_openai_error)
}
