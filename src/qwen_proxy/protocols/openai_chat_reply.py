"""What a reply of `/v1/chat/completions` is made of, whether it comes in one piece or in chunks. Pure.

Shapes: see `protocols.openai_chat`.
"""

import hashlib
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from qwen_proxy import __version__
from qwen_proxy.chat.events import FinishReason, Source, Usage, UsageOrigin, joined_logprobs
from qwen_proxy.chat.result import Called, ChatResult, Reasoned, Said
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.media_text import media_text
from qwen_proxy.protocols.openai_freeform import text_in

_json: Final = msgspec.json.encode


class _Head(Struct):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str


class _Cached(Struct):
    cached_tokens: int


class _Reasoning(Struct):
    reasoning_tokens: int


class _Usage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _Cached
    completion_tokens_details: _Reasoning
    origin: UsageOrigin


class _Message(Struct):
    role: str
    content: str | None
    refusal: None
    reasoning_content: str | UnsetType
    annotations: list[dict[str, object]]
    tool_calls: list[dict[str, object]] | UnsetType


class _Logprobs(Struct):
    content: Raw | None
    refusal: None = None


class _Choice(Struct):
    index: int
    message: _Message
    logprobs: _Logprobs | None
    finish_reason: FinishReason


def head(facts: ReplyFacts, kind: str) -> bytes:
    """What every answer and chunk begins with: a JSON object, up to its closing brace."""
    reply_id = f"chatcmpl-{facts.reply_id}"
    return _json(_Head(reply_id, kind, facts.created_at, facts.model, _fingerprint(facts.model)))[:-1]


@lru_cache(256)
def _fingerprint(model: str) -> str:
    """Changes when this program's version does, as OpenAI's changes with its backend."""
    return "fp_" + hashlib.sha256(f"{__version__}/{model}".encode()).hexdigest()[:10]


def usage_json(usage: Usage) -> bytes:
    told = _Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.prompt_tokens + usage.completion_tokens,
        _Cached(usage.cached_tokens),
        _Reasoning(usage.reasoning_tokens),
        usage.origin,
    )
    return _json(told)


def choice_json(index: int, result: ChatResult, freeform: frozenset[str]) -> bytes:
    """One choice of an answer in one piece. freeform: names of the tools whose input is a text."""
    said: list[str] = []
    logprobs: list[Raw] = []
    thought: list[str] = []
    calls: list[dict[str, object]] = []
    for part in result.parts:
        if type(part) is Said:
            said.append(part.text)
            if part.logprobs is not None:
                logprobs.append(part.logprobs)
        elif type(part) is Reasoned:
            thought.append(part.text)
        elif type(part) is Called:
            calls.append(_called(part, freeform))
        else:
            said.append(media_text(part))
    message = _Message(
        "assistant",
        "".join(said) or (None if calls else ""),
        None,
        "".join(thought) or UNSET,
        [citation(source) for source in result.sources] if result.sources else [],
        calls or UNSET,
    )
    told = _Logprobs(joined_logprobs(logprobs)) if logprobs else None
    return _json(_Choice(index, message, told, result.finish.reason))


def _called(part: Called, freeform: frozenset[str]) -> dict[str, object]:
    if part.name in freeform:
        return custom_call(part.call_id, part.name, text_in(part.arguments))
    return call(part.call_id, part.name, part.arguments)


def call(call_id: str, name: str, arguments: str) -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def custom_call(call_id: str, name: str, text: str) -> dict[str, object]:
    return {"id": call_id, "type": "custom", "custom": {"name": name, "input": text}}


def citation(source: Source) -> dict[str, object]:
    """The upstream tells no place in the text, so the range is empty."""
    cited = {"url": source.url, "title": source.title or source.url, "start_index": 0, "end_index": 0}
    return {"type": "url_citation", "url_citation": cited}
