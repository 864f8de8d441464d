"""Qwen Code's service: chat completions as OpenAI has them, with its own refusals (upstream protocol §8.5, §8.6)."""

import json
from typing import Any

import msgspec

from qwen_proxy.simulator.records import SeenRequest
from qwen_proxy.simulator.replies import Reply, json_reply
from qwen_proxy.simulator.site import Site

REFUSED_FIELDS = (
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "n",
    "seed",
    "service_tier",
    "user",
)


class PartBody(msgspec.Struct, frozen=True):
    text: str = ""
    cache_control: dict[str, str] | None = None


class MessageBody(msgspec.Struct, frozen=True):
    role: str = ""
    content: str | list[PartBody] | None = None


class OptionsBody(msgspec.Struct, frozen=True):
    include_usage: bool = False


class AskedBody(msgspec.Struct, frozen=True):
    messages: list[MessageBody]
    model: str = ""
    stream: bool = False
    stream_options: OptionsBody = OptionsBody()


def models(site: Site, seen: SeenRequest) -> Reply:
    """`GET /v1/models`."""
    if (refusal := _refusal(site, seen)) is not None:
        return refusal
    listed = [{"id": id, "object": "model", "owned_by": "qwen"} for id in site.scenario.portal.models]
    return json_reply({"object": "list", "data": listed})


def complete(site: Site, seen: SeenRequest) -> Reply:
    """`POST /v1/chat/completions`: says back what the last user message said, a word a chunk."""
    if (refusal := _refusal(site, seen)) is not None:
        return refusal
    try:
        asked = msgspec.json.decode(seen.body, type=AskedBody)
        fields = msgspec.json.decode(seen.body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        return _error(400, "invalid_parameter_error", str(error))
    if site.scenario.portal.out_of_quota:
        return _error(429, "insufficient_quota", "Free allocated quota exceeded.", "insufficient_quota")
    if asked.model not in site.scenario.portal.models:
        return _error(400, "invalid_parameter_error", f"model `{asked.model}` is not supported.")
    if (odd := _odd(fields, asked.messages)) is not None:
        return _error(400, "invalid_parameter_error", odd)
    words = f"You said: {_said(asked.messages)}".split(" ")
    usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
    if not asked.stream:
        message = {"role": "assistant", "content": " ".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return json_reply({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": usage})
    steps = [_chunk({"role": "assistant", "content": ""})]
    steps += [_chunk({"content": word if not at else f" {word}"}) for at, word in enumerate(words)]
    steps.append(_chunk({}, "stop"))
    if asked.stream_options.include_usage:
        steps.append(json.dumps({"id": "chatcmpl-1", "choices": [], "usage": usage}))
    return Reply([*steps], done=True)


def _refusal(site: Site, seen: SeenRequest) -> Reply | None:
    token = site.portal_tokens.get(seen.bearer or "")
    refused = site.scenario.portal.refused
    is_good = token is not None and token.ends_at > site.now()
    if token is None or not is_good or refused == "all" or (refused == "first" and token.is_first):
        return _error(401, "invalid_api_key", "invalid access token or token expired")
    return None


def _odd(fields: dict[str, Any], messages: list[MessageBody]) -> str | None:
    """What a plain request lacks or has, as the portal was seen to refuse it (§8.5)."""
    if found := [name for name in REFUSED_FIELDS if name in fields]:
        return f"{found[0]} is not supported"
    if found := [name for name, value in fields.items() if value in (None, [], {})]:
        return f"{found[0]} is empty"
    first = messages[0] if messages else MessageBody()
    if first.role != "system" or not isinstance(first.content, list) or not first.content:
        return "the first message has to be the system's, in parts"
    if first.content[0].cache_control != {"type": "ephemeral"}:
        return "the first part has to be cached"
    if any(message.role == "system" for message in messages[1:]):
        return "one system message only"
    return None


def _said(messages: list[MessageBody]) -> str:
    content = next((each.content for each in reversed(messages) if each.role == "user"), None)
    return " ".join(part.text for part in content) if isinstance(content, list) else content or ""


def _chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]})


def _error(status: int, code: str, message: str, kind: str = "invalid_request_error") -> Reply:
    return json_reply({"error": {"message": message, "type": kind, "code": code}}, status=status)
