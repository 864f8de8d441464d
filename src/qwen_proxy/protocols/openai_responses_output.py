"""What `/v1/responses` answers: the response and its items, as JSON. Pure.

Shapes: OpenAI's API reference, as typed in the openai SDK 3.54.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from qwen_proxy.chat.events import Finish, FinishReason, Source, Usage
from qwen_proxy.ground.errors import (
    AccountsOutOfQuota,
    ContentRefused,
    InputRefused,
    InvalidRequest,
    KeyLimitReached,
    ModelNotFound,
    PromptTooLong,
    ProxyError,
    QuotaExhausted,
)
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.failures import without_details
from qwen_proxy.protocols.logprobs import TokenBody, tokens_of
from qwen_proxy.protocols.openai_errors import INTERNAL, terms_of
from qwen_proxy.protocols.openai_responses_body import Asked
from qwen_proxy.protocols.openai_responses_sealed import sealed

_json: Final = msgspec.json.encode

# Of the SDK's closed list; what is in none of these rows is the server's fault.
_CODES: Final[tuple[tuple[tuple[type[ProxyError], ...], str], ...]] = (
    ((KeyLimitReached, QuotaExhausted, AccountsOutOfQuota), "rate_limit_exceeded"),
    ((InvalidRequest, ModelNotFound, PromptTooLong, InputRefused, ContentRefused), "invalid_prompt"),
)
_REASONS: Final[Mapping[FinishReason, str]] = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
}


class Wishes(Struct, frozen=True, kw_only=True):
    """What of a request decides how its reply is written.

    echo: the members of a response that only tell the request again. summarises: thinking is told as a summary.
    tells_sources: what a search has found is told with it, besides the citations.
    """

    echo: bytes
    summarises: bool = False
    seals_reasoning: bool = False
    tells_sources: bool = False


def wishes(asked: Asked) -> Wishes:
    body = asked.body
    reasoning = body.reasoning
    summary = None if reasoning is None else reasoning.summary or reasoning.generate_summary
    return Wishes(
        echo=_echo(asked),
        summarises=summary is not None,
        seals_reasoning="reasoning.encrypted_content" in (body.include or []),
        tells_sources="web_search_call.action.sources" in (body.include or []),
    )


def _echo(asked: Asked) -> bytes:
    body, kept = asked.body, asked.kept
    reasoning = body.reasoning
    told: dict[str, object] = {
        "background": body.background is True,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": None if reasoning is None else reasoning.effort,
            "summary": None if reasoning is None else reasoning.summary or reasoning.generate_summary,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": body.temperature,
        "text": kept.text,
        "tool_choice": kept.tool_choice,
        "tools": kept.tools,
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": body.truncation or "disabled",
        "user": body.user,
    }
    return _json(told)[1:-1]


class Outcome(Struct, frozen=True, kw_only=True):
    """How far a response has come. error: `{"code", "message"}`, with `failed` alone."""

    status: str
    reason: str | None = None
    error: Mapping[str, str | None] | None = None


IN_PROGRESS: Final = Outcome(status="in_progress")
QUEUED: Final = Outcome(status="queued")
CANCELLED: Final = Outcome(status="cancelled")


def outcome_of(finish: Finish) -> Outcome:
    reason = _REASONS.get(finish.reason)
    return Outcome(status="completed" if reason is None else "incomplete", reason=reason)


def response(
    facts: ReplyFacts,
    wishes: Wishes,
    outcome: Outcome,
    items: Sequence[bytes] = (),
    usage: Usage | None = None,
) -> bytes:
    """A response with the items of its output."""
    head: dict[str, object] = {
        "id": response_id(facts.reply_id),
        "object": "response",
        "created_at": facts.created_at,
        "status": outcome.status,
        "error": outcome.error,
        "incomplete_details": None if outcome.reason is None else {"reason": outcome.reason},
        "model": facts.model,
        "output": [Raw(item) for item in items],
        "usage": None if usage is None else usage_told(usage),
    }
    return _json(head)[:-1] + b"," + wishes.echo + b"}"


def response_id(reply_id: str) -> str:
    return f"resp_{reply_id}"


def usage_told(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


# --- errors ------------------------------------------------------------------------------------------------


def failed(error: ProxyError, request_id: str) -> Outcome:
    code = next((code for kinds, code in _CODES if isinstance(error, kinds)), "server_error")
    return Outcome(status="failed", error={"code": code, "message": message_of(error, request_id)})


def message_of(error: ProxyError, request_id: str) -> str:
    return without_details(request_id) if terms_of(error) is INTERNAL else str(error)


def error_event(error: ProxyError, request_id: str) -> dict[str, object]:
    """Flat, unlike the body of an HTTP error."""
    param = error.param if isinstance(error, InvalidRequest) else None
    return {
        "type": "error",
        "code": terms_of(error).code,
        "message": message_of(error, request_id),
        "param": "model" if isinstance(error, ModelNotFound) else param,
    }


# --- items -------------------------------------------------------------------------------------------------


def text_part(text: str, annotations: Sequence[Mapping[str, object]], logprobs: Raw | None = None) -> dict[str, object]:
    """logprobs: as `logprobs_told` makes them."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": annotations,
        "logprobs": [] if logprobs is None else logprobs,
    }


def logprobs_told(logprobs: Raw) -> Raw:
    """Here each token has to have its bytes, and the likeliest ones, though they be none."""
    tokens = [
        _token(token) | {"top_logprobs": [_token(each) for each in token.top_logprobs or ()]}
        for token in tokens_of(logprobs)
    ]
    return Raw(_json(tokens))


def _token(token: TokenBody) -> dict[str, object]:
    return {"token": token.token, "bytes": list(token.encoded), "logprob": token.logprob}


def message_item(id: str, status: str, content: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning_item(id: str, status: str, text: str, wishes: Wishes) -> dict[str, object]:
    """Without any text as it stands when it is begun."""
    is_done = bool(text)
    item: dict[str, object] = {
        "id": id,
        "type": "reasoning",
        "status": status,
        "summary": [summary_part(text)] if is_done and wishes.summarises else [],
        "encrypted_content": sealed(text) if is_done and wishes.seals_reasoning else None,
    }
    if not wishes.summarises:
        item["content"] = [reasoning_part(text)] if is_done else []
    return item


def summary_part(text: str) -> dict[str, object]:
    return {"type": "summary_text", "text": text}


def reasoning_part(text: str) -> dict[str, object]:
    return {"type": "reasoning_text", "text": text}


def search_item(id: str, status: str, queries: Sequence[str], sources: Sequence[Source] | None) -> dict[str, object]:
    """sources: None where they are not told here."""
    action: dict[str, object] = {"type": "search"}
    if queries:
        action |= {"query": queries[0], "queries": queries}
    if sources is not None:
        action["sources"] = [{"type": "url", "url": source.url} for source in sources]
    return {"id": id, "type": "web_search_call", "status": status, "action": action}


def citation(source: Source) -> dict[str, object]:
    """The upstream tells no place in the text, so the range is empty."""
    title = source.title or source.url
    return {"type": "url_citation", "url": source.url, "title": title, "start_index": 0, "end_index": 0}
