"""Notes where a request departs from the ordinary web client without being refused (upstream protocol §9.1, §4.1).

Nothing here changes an answer: the page blames such differences for captchas, or names them as habits of the front end.
"""

import re
import uuid

import msgspec

from qwen_proxy.simulator.records import SeenRequest
from qwen_proxy.simulator.site import Site

CHECKED = {"completions", "chats_new", "chats_list", "chat_detail", "chat_delete"}
TIMEZONE = re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d{2} \d{4} \d{2}:\d{2}:\d{2} GMT[+-]\d{4}")
EXPECTED = {
    "source": "web",
    "sec-fetch-dest": "empty",
    "sec-fetch-mode": "cors",
    "sec-fetch-site": "same-origin",
}
PRESENT = ("accept", "accept-language", "origin", "referer", "x-request-id", "timezone", "cookie")
MILLISECONDS = 100_000_000_000


class SubType(msgspec.Struct, frozen=True, rename="camel"):
    sub_chat_type: str | None = None


class Extra(msgspec.Struct, frozen=True):
    meta: SubType = SubType()


class Message(msgspec.Struct, frozen=True):
    """The parts of the one message that the front end always sends (§4.1)."""

    fid: str | None = None
    timestamp: float | None = None
    models: list[str] = []
    chat_type: str | None = None
    sub_chat_type: str | None = None
    extra: Extra = Extra()


class Body(msgspec.Struct, frozen=True):
    """What completions and chats/new share, and what only one of them has."""

    timestamp: float | None = None
    title: str | None = None
    model: str | None = None
    chat_id: str | None = None
    version: str | None = None
    incremental_output: bool | None = None
    messages: list[Message] = []


def note(site: Site, seen: SeenRequest) -> None:
    """Add to `site.warnings` what an ordinary client would have sent otherwise."""
    if seen.endpoint not in CHECKED:
        return
    notes = _headers(seen)
    if seen.method == "POST":
        notes += _body(seen)
    for text in notes:
        site.warn(f"{seen.endpoint}: {text}")


def _headers(seen: SeenRequest) -> list[str]:
    headers = seen.headers
    notes = [f"header {name} is missing" for name in PRESENT if name not in headers]
    for name, value in EXPECTED.items():
        if headers.get(name) != value:
            notes.append(f"header {name} is not '{value}'")
    if "x-request-id" in headers and not _is_uuid4(headers["x-request-id"]):
        notes.append("header x-request-id is not a UUIDv4")
    if "timezone" in headers and not TIMEZONE.fullmatch(headers["timezone"]):
        notes.append("header timezone is not a plain JavaScript date")
    if any(not value.isascii() for value in headers.values()):
        notes.append("a header is not ASCII")
    if seen.endpoint == "completions" and headers.get("x-accel-buffering") != "no":
        notes.append("header x-accel-buffering is not 'no'")
    if seen.method == "POST" and not headers.get("content-type", "").startswith("application/json"):
        notes.append("header content-type is not application/json")
    return notes


def _body(seen: SeenRequest) -> list[str]:
    try:
        body = msgspec.json.decode(seen.body, type=Body)
    except msgspec.MsgspecError as error:
        return [f"body differs from the front end's: {error}"]
    return _completion(body) if seen.endpoint == "completions" else _new_chat(body)


def _new_chat(body: Body) -> list[str]:
    notes: list[str] = []
    if body.title is not None and body.title.startswith("api_"):
        notes.append("title starts with api_ (§3.1)")
    if body.timestamp is None or body.timestamp < MILLISECONDS:
        notes.append("timestamp is not in milliseconds (§3.1)")
    return notes


def _completion(body: Body) -> list[str]:
    notes: list[str] = []
    if body.incremental_output is not True:
        notes.append("incremental_output is not true (§4.1)")
    if body.version is None:
        notes.append("version is missing in the body (§4.1)")
    if body.timestamp is None or body.timestamp > MILLISECONDS:
        notes.append("timestamp is not in seconds (§4.1)")
    for message in body.messages:
        if message.fid is None or not _is_uuid4(message.fid):
            notes.append("fid is not a fresh UUIDv4 (§4.1)")
        if body.model not in message.models:
            notes.append("messages[0].models does not name the model (§4.1)")
        if not message.chat_type == message.sub_chat_type == message.extra.meta.sub_chat_type:
            notes.append("chat_type, sub_chat_type and extra.meta.subChatType differ (§4.3)")
    return notes


def _is_uuid4(text: str) -> bool:
    try:
        return uuid.UUID(text).version == 4
    except ValueError:
        return False
