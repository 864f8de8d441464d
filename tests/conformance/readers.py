"""What a client makes of the bytes of each protocol: one line of READERS a protocol."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

Json = dict[str, Any]  # JSON enters here


class Read(Struct, frozen=True, kw_only=True):
    """A reply as a client sees it, streamed or not. `logprobs`: the text's tokens, each with its own. `finish` is the
    protocol's own word, empty while there is none; `error` the sentence of a failure in the stream."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    sources: tuple[str, ...] = ()
    logprobs: tuple[tuple[str, float], ...] = ()
    finish: str = ""
    completion_tokens: int | None = None
    error: str = ""
    ended: bool = False


def _tokens(told: list[Json]) -> tuple[tuple[str, float], ...]:
    """Of tokens as chat completions, Responses and Ollama have them."""
    return tuple((token["token"], token["logprob"]) for token in told)


class Reader(Struct, frozen=True, kw_only=True):
    """body: a request that asks for usage. stream, result: bytes to Read. error: an error body's sentence and kind.

    wishes: whether its replies can be streamed, and be whole.
    """

    body: Callable[[bool], bytes]
    stream: Callable[[bytes], Read]
    result: Callable[[bytes], Read]
    error: Callable[[bytes], tuple[str, str]]
    wishes: tuple[bool, ...] = (True, False)


def _openai_body(streamed: bool) -> bytes:
    fields = {"messages": [{"role": "user", "content": "hello"}], "stream": streamed}
    return msgspec.json.encode(fields | {"stream_options": {"include_usage": True}})


def _openai_stream(written: bytes) -> Read:
    text = reasoning = finish = error = ""
    calls: list[list[str]] = []
    sources: list[str] = []
    logprobs: list[Json] = []
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
            logprobs += choice["logprobs"]["content"] if choice["logprobs"] else []
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
        logprobs=_tokens(logprobs),
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
        logprobs=_tokens(choice["logprobs"]["content"] if choice["logprobs"] else []),
        finish=choice["finish_reason"],
        completion_tokens=reply["usage"]["completion_tokens"],
        ended=True,
    )


def _openai_error(body: bytes) -> tuple[str, str]:
    error: Json = msgspec.json.decode(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"], error["type"]


def _completions_body(streamed: bool) -> bytes:
    return msgspec.json.encode({"prompt": "hello", "stream": streamed, "stream_options": {"include_usage": True}})


def _completions_stream(written: bytes) -> Read:
    text = finish = error = ""
    logprobs: tuple[tuple[str, float], ...] = ()
    tokens: int | None = None
    *frames, rest = written.split(b"\n\n")
    assert rest == b""
    ended = frames[-1:] == [b"data: [DONE]"]
    for frame in frames[: -1 if ended else None]:
        if frame.startswith(b":"):
            continue
        chunk: Json = msgspec.json.decode(frame.removeprefix(b"data: "))
        if "error" in chunk:
            error = chunk["error"]["message"]
            continue
        assert error == "" and chunk["object"] == "text_completion"
        tokens = chunk["usage"]["completion_tokens"] if chunk["usage"] else tokens
        for choice in chunk["choices"]:
            assert finish == ""
            text += choice["text"]
            logprobs += _completions_tokens(choice)
            finish = choice["finish_reason"] or ""
    return Read(text=text, logprobs=logprobs, finish=finish, completion_tokens=tokens, error=error, ended=ended)


def _completions_tokens(choice: Json) -> tuple[tuple[str, float], ...]:
    told: Json | None = choice["logprobs"]
    if told is None:
        return ()
    assert len(told["text_offset"]) == len(told["top_logprobs"]) == len(told["tokens"])
    return tuple(zip(told["tokens"], told["token_logprobs"], strict=True))


def _completions_result(body: bytes) -> Read:
    reply: Json = msgspec.json.decode(body)
    (choice,) = reply["choices"]
    tokens = reply["usage"]["completion_tokens"]
    return Read(
        text=choice["text"],
        logprobs=_completions_tokens(choice),
        finish=choice["finish_reason"],
        completion_tokens=tokens,
        ended=True,
    )


def _anthropic_body(streamed: bool) -> bytes:
    fields = {"messages": [{"role": "user", "content": "hello"}], "stream": streamed, "max_tokens": 4000}
    return msgspec.json.encode(fields | {"tools": [{"type": "web_search_20250305", "name": "web_search"}]})


class _Blocks:
    """What the blocks of a Messages reply say, each whole."""

    def __init__(self) -> None:
        self.text = self.reasoning = ""
        self.calls: list[tuple[str, str, str]] = []
        self.sources: list[str] = []

    def add(self, block: Json, *, is_whole: bool = True) -> None:
        match block["type"]:
            case "text":
                assert block["text"]
                self.text += block["text"]
            case "thinking":
                assert block["signature"] or not is_whole
                self.reasoning += block["thinking"]
            case "tool_use":
                assert block["id"].startswith("toolu_")
                self.calls.append((block["id"], block["name"], msgspec.json.encode(block["input"]).decode()))
            case "web_search_tool_result":
                self.sources += [each["url"] for each in block["content"]]
            case kind:
                assert kind == "server_tool_use"


def _anthropic_stream(written: bytes) -> Read:
    """As strict about the order of events as the SDKs' accumulators are."""
    blocks = _Blocks()
    finish = error = ""
    tokens: int | None = None
    begun = ended = False
    block: Json | None = None
    arguments, index = "", 0
    *frames, rest = written.split(b"\n\n")
    assert rest == b""
    for frame in frames:
        name, _, data = frame.decode().partition("\n")
        event: Json = msgspec.json.decode(data.removeprefix("data: "))
        assert name == f"event: {event['type']}" and not error and not ended
        match event["type"]:
            case "ping":
                pass
            case "error":
                error = event["error"]["message"]
            case "message_start":
                assert not begun and event["message"]["content"] == []
                begun = True
            case "content_block_start":
                assert begun and block is None and not finish and event["index"] == index
                assert not event["content_block"].get("input")
                block, arguments = event["content_block"], ""
            case "content_block_delta":
                assert block is not None and event["index"] == index
                delta: Json = event["delta"]
                match delta["type"]:
                    case "text_delta":
                        block["text"] += delta["text"]
                    case "thinking_delta":
                        assert not block["signature"]
                        block["thinking"] += delta["thinking"]
                    case "signature_delta":
                        block["signature"] = delta["signature"]
                    case kind:
                        assert kind == "input_json_delta"
                        arguments += delta["partial_json"]
            case "content_block_stop":
                assert block is not None and event["index"] == index
                if block["type"] == "tool_use":
                    block["input"] = _object(arguments)
                blocks.add(block)
                block, index = None, index + 1
            case "message_delta":
                assert begun and block is None and not finish
                finish, tokens = event["delta"]["stop_reason"], event["usage"]["output_tokens"]
            case kind:
                assert kind == "message_stop" and finish
                ended = True
    if block is not None:
        assert error
        blocks.add(block, is_whole=False)
    return Read(
        text=blocks.text,
        reasoning=blocks.reasoning,
        calls=tuple(blocks.calls),
        sources=tuple(blocks.sources),
        finish=finish,
        completion_tokens=tokens,
        error=error,
        ended=ended,
    )


def _object(text: str) -> Json:
    """An object, or an empty one in its place."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _anthropic_result(body: bytes) -> Read:
    reply: Json = msgspec.json.decode(body)
    assert (reply["type"], reply["role"]) == ("message", "assistant")
    blocks = _Blocks()
    for block in reply["content"]:
        blocks.add(block)
    return Read(
        text=blocks.text,
        reasoning=blocks.reasoning,
        calls=tuple(blocks.calls),
        sources=tuple(blocks.sources),
        finish=reply["stop_reason"],
        completion_tokens=reply["usage"]["output_tokens"],
        ended=True,
    )


def _anthropic_error(body: bytes) -> tuple[str, str]:
    reply: Json = msgspec.json.decode(body)
    assert reply["type"] == "error" and reply["request_id"]
    return reply["error"]["message"], reply["error"]["type"]


def _responses_body(streamed: bool) -> bytes:
    return msgspec.json.encode({"input": "hello", "stream": streamed})


def _responses_stream(written: bytes) -> Read:
    """Puts the items together from their deltas, and holds each against what its `done` says."""
    *frames, rest = written.split(b"\n\n")
    assert rest == b""
    items: list[Json] = []
    whole = ""
    logprobs: list[Json] = []
    final: Json = {}
    error = ""
    numbers: list[int] = []
    for frame in frames:
        if frame.startswith(b":"):
            continue
        name, data = frame.split(b"\n")
        assert name.startswith(b"event: ") and data.startswith(b"data: ")
        event: Json = msgspec.json.decode(data.removeprefix(b"data: "))
        kind: str = event["type"]
        assert kind.encode() == name.removeprefix(b"event: ") and not final
        numbers.append(event["sequence_number"])
        index: int = event.get("output_index", len(items))
        item: Json = items[index] if index < len(items) else {}
        assert "item_id" not in event or event["item_id"] == item["id"]
        match kind.removeprefix("response."):
            case "output_item.added":
                assert index == len(items)
                items.append(event["item"])
                whole, logprobs = "", []
            case "output_item.done":
                assert item["id"] == event["item"]["id"]
                items[-1] = event["item"]
                assert whole == _item_text(event["item"])
                assert logprobs == _item_logprobs(event["item"])
            case last if last.endswith(".delta"):
                whole += event["delta"]
                logprobs += event.get("logprobs", [])
            case last if last.endswith(".done"):
                assert whole == next((event[key] for key in ("text", "arguments", "input") if key in event), whole)
                assert logprobs == event.get("logprobs", logprobs)
            case "error":
                error = event["message"]
            case "completed" | "incomplete" | "failed":
                final = event["response"]
            case other:
                is_search = other.startswith("web_search_call.")
                assert other.endswith(".added") or is_search or other in ("created", "in_progress")
    assert numbers == list(range(len(numbers)))
    if error:
        assert final["status"] == "failed" and final["error"]["message"] == error
        return structs.replace(_responses_read(final), finish="", error=error, ended=False)
    assert final["output"] == items
    return _responses_read(final)


def _item_text(item: Json) -> str:
    if item["type"] == "message":
        return "".join(part["text"] for part in item["content"])
    if item["type"] == "reasoning":
        return "".join(part["text"] for part in [*item["summary"], *item.get("content", [])])
    return item.get("arguments", item.get("input", ""))


def _item_logprobs(item: Json) -> list[Json]:
    return [token for part in item.get("content", []) for token in part.get("logprobs", [])]


def _responses_result(body: bytes) -> Read:
    return _responses_read(msgspec.json.decode(body))


def _responses_read(reply: Json) -> Read:
    said: dict[str, list[Json]] = {"message": [], "reasoning": [], "function_call": [], "web_search_call": []}
    for item in reply["output"]:
        said[item["type"]].append(item)
    usage, reason = reply["usage"], reply["incomplete_details"]
    content = [part for item in said["message"] for part in item["content"]]
    return Read(
        text="".join(map(_item_text, said["message"])),
        reasoning="".join(map(_item_text, said["reasoning"])),
        calls=tuple((call["call_id"], call["name"], call["arguments"]) for call in said["function_call"]),
        sources=tuple(cited["url"] for part in content for cited in part["annotations"]),
        logprobs=tuple(token for item in said["message"] for token in _tokens(_item_logprobs(item))),
        finish=reply["status"] if reason is None else reason["reason"],
        completion_tokens=None if usage is None else usage["output_tokens"],
        ended=True,
    )


def _ollama_chat_body(streamed: bool) -> bytes:
    fields: Json = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    return msgspec.json.encode(fields if streamed else fields | {"stream": False})


def _ollama_generate_body(streamed: bool) -> bytes:
    return msgspec.json.encode({"model": "m", "prompt": "hello"} | ({} if streamed else {"stream": False}))


def _ollama_stream(written: bytes) -> Read:
    read = Read()
    *lines, rest = written.split(b"\n")
    assert rest == b""
    for line in lines:
        assert not read.error and not read.ended
        if b'"error"' in line and (error := msgspec.json.decode(line).get("error")):
            read = structs.replace(read, error=error)
            continue
        piece = _ollama_result(line)
        read = structs.replace(
            piece,
            text=read.text + piece.text,
            reasoning=read.reasoning + piece.reasoning,
            calls=read.calls + piece.calls,
            logprobs=read.logprobs + piece.logprobs,
        )
    return read


def _ollama_result(body: bytes) -> Read:
    reply: Json = msgspec.json.decode(body)
    assert reply["done"] == ("done_reason" in reply)
    said: Json = reply.get("message", {"role": "assistant", "content": reply.get("response")})
    assert said["role"] == "assistant"
    return Read(
        text=said["content"],
        reasoning=said.get("thinking", reply.get("thinking", "")),
        calls=tuple(
            ("", call["function"]["name"], msgspec.json.encode(call["function"]["arguments"]).decode())
            for call in said.get("tool_calls", ())
        ),
        logprobs=_tokens(reply.get("logprobs", [])),
        finish=reply.get("done_reason", ""),
        completion_tokens=reply.get("eval_count"),
        ended=reply["done"],
    )


def _ollama_error(body: bytes) -> tuple[str, str]:
    reply: Json = msgspec.json.decode(body)
    assert set(reply) == {"error"}
    return reply["error"], "error"


def _gemini_body(_streamed: bool) -> bytes:
    """Whether the reply is streamed is said by the path."""
    return msgspec.json.encode(
        {
            "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
            "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
        }
    )


def _gemini_events(written: bytes) -> Read:
    *frames, rest = written.split(b"\n\n")
    assert rest == b""
    for frame in frames:
        assert frame.startswith((b'data: {"error":', b'data: {"candidates":'))
    return _gemini_chunks([msgspec.json.decode(frame.removeprefix(b"data: ")) for frame in frames])


def _gemini_array(written: bytes) -> Read:
    return _gemini_chunks(msgspec.json.decode(written))


def _gemini_chunks(chunks: list[Json]) -> Read:
    read = Read()
    for chunk in chunks:
        assert not read.error and not read.ended
        if "error" in chunk:
            read = structs.replace(read, error=chunk["error"]["message"])
            continue
        piece = _gemini_read(chunk)
        read = structs.replace(
            piece,
            text=read.text + piece.text,
            reasoning=read.reasoning + piece.reasoning,
            calls=read.calls + piece.calls,
            sources=read.sources + piece.sources,
            logprobs=read.logprobs + piece.logprobs,
        )
    return read


def _gemini_result(body: bytes) -> Read:
    return _gemini_read(msgspec.json.decode(body))


def _gemini_read(reply: Json) -> Read:
    (candidate,) = reply["candidates"]
    assert candidate["content"]["role"] == "model" and candidate["index"] == 0
    parts: list[Json] = candidate["content"]["parts"]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    found = candidate.get("groundingMetadata", {"groundingChunks": []})["groundingChunks"]
    known = candidate.get("logprobsResult", {"chosenCandidates": []})["chosenCandidates"]
    finish, usage = candidate.get("finishReason", ""), reply.get("usageMetadata")
    return Read(
        text="".join(part.get("text", "") for part in parts if not part.get("thought")),
        reasoning="".join(part["text"] for part in parts if part.get("thought")),
        calls=tuple((call["id"], call["name"], msgspec.json.encode(call["args"]).decode()) for call in calls),
        sources=tuple(chunk["web"]["uri"] for chunk in found),
        logprobs=tuple((token["token"], token["logProbability"]) for token in known),
        finish=finish,
        completion_tokens=usage and usage["candidatesTokenCount"] + usage["thoughtsTokenCount"],
        ended=bool(finish),
    )


def _gemini_error(body: bytes) -> tuple[str, str]:
    error: Json = msgspec.json.decode(body)["error"]
    assert isinstance(error["code"], int)
    return error["message"], error["status"]


READERS: Final = {
    "openai_chat": Reader(body=_openai_body, stream=_openai_stream, result=_openai_result, error=_openai_error),
    "openai_completions": Reader(
        body=_completions_body, stream=_completions_stream, result=_completions_result, error=_openai_error
    ),
    "anthropic_messages": Reader(
        body=_anthropic_body, stream=_anthropic_stream, result=_anthropic_result, error=_anthropic_error
    ),
    "gemini": Reader(
        body=_gemini_body, stream=_gemini_events, result=_gemini_result, error=_gemini_error, wishes=(False,)
    ),
    "gemini_events": Reader(
        body=_gemini_body, stream=_gemini_events, result=_gemini_result, error=_gemini_error, wishes=(True,)
    ),
    "gemini_array": Reader(
        body=_gemini_body, stream=_gemini_array, result=_gemini_result, error=_gemini_error, wishes=(True,)
    ),
    "ollama_chat": Reader(body=_ollama_chat_body, stream=_ollama_stream, result=_ollama_result, error=_ollama_error),
    "ollama_generate": Reader(
        body=_ollama_generate_body, stream=_ollama_stream, result=_ollama_result, error=_ollama_error
    ),
    "openai_responses": Reader(
        body=_responses_body, stream=_responses_stream, result=_responses_result, error=_openai_error
    ),
}
