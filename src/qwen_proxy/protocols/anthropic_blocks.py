"""The content blocks of a Messages reply, as they stand in a whole message. Pure."""

import base64
import hmac
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from qwen_proxy.chat.events import Finish, FinishReason, MediaOutput, Source, Usage
from qwen_proxy.chat.result import Called, Reasoned, Said
from qwen_proxy.protocols.media_text import media_text

Block = dict[str, object]

_ARGUMENTS: Final = msgspec.json.Decoder(dict[str, object])
_SIGNING: Final = b"qwen-proxy thinking 1"
_STOPPED: Final = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}


class Signer:
    """Signs one block of thinking, given in pieces.

    Clients have to hand a signature back and may not read it. Nothing is decided by it here, so its key is no secret:
    the same thinking has the same signature in every process and after every start.
    """

    def __init__(self) -> None:
        self._hmac = hmac.new(_SIGNING, digestmod="sha256")

    def add(self, text: str) -> None:
        self._hmac.update(text.encode(errors="surrogatepass"))

    def signature(self) -> str:
        return base64.b64encode(b"qwp1" + self._hmac.digest()).decode()


def thinking(text: str, *, is_omitted: bool) -> Block:
    signer = Signer()
    signer.add(text)
    return {"type": "thinking", "thinking": "" if is_omitted else text, "signature": signer.signature()}


def text(said: str) -> Block:
    return {"type": "text", "text": said}


def tool_use(call: Called) -> Block:
    """Arguments that are no object, as those of a call that was cut short, are told as an empty one."""
    return {"type": "tool_use", "id": call_id(call.call_id), "name": call.name, "input": _object(call.arguments)}


def call_id(id: str) -> str:
    return id if id.startswith("toolu_") else f"toolu_{id}"


def search(sources: Sequence[Source], use_id: str, query: Block) -> tuple[Block, Block]:
    """A search of the web and what it found. query: as `searched_for` has it."""
    use: Block = {"type": "server_tool_use", "id": use_id, "name": "web_search", "input": query}
    found = [
        {
            "type": "web_search_result",
            "url": source.url,
            "title": source.title or source.url,
            "encrypted_content": base64.b64encode(source.snippet.encode(errors="replace")).decode(),
            "page_age": source.date or None,
        }
        for source in sources
    ]
    return use, {"type": "web_search_tool_result", "tool_use_id": use_id, "content": found}


def searched_for(queries: Sequence[str]) -> Block:
    """The input of a search, which has one query; nothing in it where the upstream does not tell."""
    return {"query": "; ".join(queries)} if queries else {}


def blocks(
    parts: Iterable[Reasoned | Said | Called | MediaOutput],
    sources: Sequence[Source],
    use_id: str,
    *,
    queries: Sequence[str],
    is_omitted: bool,
    is_single: bool,
) -> list[Block]:
    """Of a whole reply. Sources stand before the first text, since the reply doesn't tell where they came.

    is_single: there is one block of text, and nothing between its pieces.
    """
    made: list[Block] = []
    said = ""
    for part in parts:
        if isinstance(part, Said | MediaOutput):
            said += part.text if isinstance(part, Said) else media_text(part)
        elif said and is_single and isinstance(part, Reasoned):
            continue
        else:
            if said:
                made.append(text(said))
                said = ""
            if isinstance(part, Called):
                made.append(tool_use(part))
            elif part.text:
                made.append(thinking(part.text, is_omitted=is_omitted))
    if said:
        made.append(text(said))
    if sources:
        place = next((i for i, block in enumerate(made) if block["type"] == "text"), len(made))
        made[place:place] = search(sources, use_id, searched_for(queries))
    return made


def stopped(finish: Finish, *, has_calls: bool) -> Block:
    """How the reply ended; a reply that calls and says no more about its end ended for its calls."""
    reason = _STOPPED[finish.reason]
    if finish.stop_sequence is not None:
        reason = "stop_sequence"
    elif has_calls and finish.reason is FinishReason.STOP:
        reason = "tool_use"
    details = {"type": "refusal", "category": None, "explanation": None} if reason == "refusal" else None
    return {"stop_reason": reason, "stop_sequence": finish.stop_sequence, "stop_details": details}


def usage(used: Usage, searches: int) -> Block:
    """`input_tokens` are those that no cache had."""
    told: Block = {
        "input_tokens": max(0, used.prompt_tokens - used.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": used.cached_tokens,
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"thinking_tokens": used.reasoning_tokens},
    }
    if searches:
        told["server_tool_use"] = {"web_search_requests": searches, "web_fetch_requests": 0}
    return told


def _object(arguments: str) -> dict[str, object]:
    try:
        return _ARGUMENTS.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return {}
