"""What is kept of a response, and told of it again: its input's items, its events, and an end that came from outside.

Pure.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from qwen_proxy.ground.errors import InvalidRequest, ProxyError
from qwen_proxy.protocols.openai_responses_body import ItemBody, KeptBody
from qwen_proxy.protocols.openai_responses_output import CANCELLED, Outcome, error_event, failed
from qwen_proxy.protocols.openai_responses_writers import Writer

_json: Final = msgspec.json.encode

INPUT_PLACE: Final = 0x8000  # where the numbers of an input's items begin, in ids: an output has no so many
MOST_LISTED: Final = 100
UNFINISHED: Final = frozenset({"queued", "in_progress"})  # what is said of a response that is not at its end
_OURS: Final = re.compile(r"[a-z]+_([0-9a-f]{32})[0-9a-f]{4}")
_NUMBER: Final = re.compile(rb'"sequence_number":(\d+)\}\Z')
_ITEMS: Final = msgspec.json.Decoder(list[Raw])
_BODY: Final = msgspec.json.Decoder(ItemBody)
_INPUT: Final = msgspec.json.Decoder(str | list[dict[str, Raw]])
_OPEN: Final[msgspec.json.Decoder[dict[str, Raw]]] = msgspec.json.Decoder(dict[str, Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_PREFIXES: Final = {
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "reasoning": "rs",
    "message": "msg",
    "web_search_call": "ws",
}


# --- items -------------------------------------------------------------------------------------------------


def response_of(item_id: str) -> str:
    """The id of the response that an item belongs to; empty for an id that we did not make."""
    ours = _OURS.fullmatch(item_id)
    return f"resp_{ours[1]}" if ours else ""


def bodies(items: bytes) -> list[ItemBody]:
    """A JSON array of items that were checked before."""
    return [_BODY.decode(item) for item in _ITEMS.decode(items)]


def items_of(response: bytes) -> bytes:
    """The output of a response, as a JSON array."""
    return bytes(_OPEN.decode(response)["output"])


def find_item(items: bytes, id: str) -> Raw | None:
    for item in _ITEMS.decode(items):
        if _BODY.decode(item).id == id:
            return item
    return None


def input_items(kept: KeptBody, reply_id: str, found: Mapping[str, Raw]) -> bytes:
    """The items of a body's input as a JSON array, each with an id and a type. found: what references stand for."""
    wanted = _INPUT.decode(kept.input)
    if isinstance(wanted, str):
        content = Raw(_json([{"type": "input_text", "text": wanted}]))
        wanted = [{"role": Raw(b'"user"'), "content": content}]
    return _json([_item(item, reply_id, place, found) for place, item in enumerate(wanted)])


def _item(item: dict[str, Raw], reply_id: str, place: int, found: Mapping[str, Raw]) -> Raw | dict[str, Raw]:
    shape = _BODY.decode(_json(item))
    if shape.kind == "item_reference":
        return found[shape.id or ""]
    told = {name: value for name, value in item.items() if bytes(value) != b"null"}
    told.setdefault("id", Raw(_json(f"{_PREFIXES.get(shape.kind, 'item')}_{reply_id}{INPUT_PLACE + place:04x}")))
    told.setdefault("type", Raw(_json(shape.kind)))
    told.setdefault("status", Raw(b'"completed"'))
    content = told.get("content")
    if content is not None and bytes(content).startswith(b'"'):
        kind = "output_text" if shape.role == "assistant" else "input_text"
        told["content"] = Raw(_json([{"type": kind, "text": _TEXT.decode(content)}]))
    return told


def listed(items: bytes, query: Mapping[str, str]) -> bytes:
    """A page of items, newest first unless the query wants it otherwise. Raises InvalidRequest."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest("order must be 'asc' or 'desc'", param="order")
    limit = query.get("limit", "20")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:4]) <= MOST_LISTED:
        raise InvalidRequest(f"limit must be a whole number from 1 to {MOST_LISTED}", param="limit")
    all_items = _ITEMS.decode(items)
    ids = [_BODY.decode(item).id or "" for item in all_items]
    if order == "desc":
        all_items.reverse()
        ids.reverse()
    after = query.get("after", "")
    if after and after not in ids:
        raise InvalidRequest("after names no item of this list", param="after")
    first = ids.index(after) + 1 if after else 0
    last = first + int(limit)
    page = ids[first:last]
    told = {
        "object": "list",
        "data": all_items[first:last],
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
        "has_more": last < len(ids),
    }
    return _json(told)


# --- events ------------------------------------------------------------------------------------------------


def frames(written: bytes) -> Iterator[tuple[int, bytes]]:
    """Events that were written, each with its number. No text of a model can end one: JSON has no line feeds."""
    for frame in written.split(b"\n\n")[:-1]:
        number = _NUMBER.search(frame)
        assert number is not None  # each is written with one
        yield int(number[1]), frame + b"\n\n"


def behind(written: bytes, number: int) -> bytes:
    """The events with higher numbers."""
    return b"".join(frame for each, frame in frames(written) if each > number)


def last_number(written: bytes) -> int:
    """Of the last event; at least one is there."""
    number = _NUMBER.search(written.removesuffix(b"\n\n"))
    assert number is not None  # each is written with one
    return int(number[1])


def items_done(written: bytes) -> list[Raw]:
    """The items that these events have told whole."""
    done: list[Raw] = []
    for _, frame in frames(written):
        if frame.startswith(b"event: response.output_item.done\n"):
            done.append(_OPEN.decode(frame.split(b"\ndata: ", 1)[1])["item"])
    return done


# --- an end from outside -----------------------------------------------------------------------------------


class Ended(Struct, frozen=True):
    """events: the last ones, from `first` to `last`. response: as it stays."""

    events: bytes
    last: int
    response: bytes


def cancelled(response: bytes, written: bytes, last: int) -> Ended:
    """By the client, while another process or none is at work on it. written: its events so far, up to `last`."""
    return _ended(response, written, last, CANCELLED, b"response.incomplete", b"")


def broken_off(response: bytes, written: bytes, last: int, error: ProxyError, request_id: str) -> Ended:
    """Whoever was at work on it is gone."""
    told = _json(error_event(error, request_id))[1:-1]
    return _ended(response, written, last, failed(error, request_id), b"response.failed", told)


def _ended(response: bytes, written: bytes, last: int, outcome: Outcome, kind: bytes, error: bytes) -> Ended:
    writer = Writer()
    writer.next = last + 1
    opening = b"" if last >= 0 else writer.event(b"response.created", b'"response":' + response)
    told = writer.event(b"error", error) if error else b""
    final = changed(response, outcome, items_done(written))
    return Ended(opening + told + writer.event(kind, b'"response":' + final), writer.next - 1, final)


def changed(response: bytes, outcome: Outcome, items: Sequence[Raw]) -> bytes:
    """The same response, come to another state."""
    members: dict[str, Any] = dict(_OPEN.decode(response))
    return _json(members | {"status": outcome.status, "error": outcome.error, "output": items})


def facts_of(response: bytes) -> tuple[int, str]:
    """When it was created, and the model it names."""
    told = msgspec.json.decode(response, type=_Facts)
    return told.created_at, told.model


def status_of(response: bytes) -> str:
    return msgspec.json.decode(response, type=_Facts).status


class _Facts(Struct):
    created_at: int
    model: str
    status: str
