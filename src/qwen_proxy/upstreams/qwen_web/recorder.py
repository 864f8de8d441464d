"""Turns an operator's own exchange into a recording without anything that tells who it was. Pure but for `write`.

What may stay is listed; everything else is replaced. Equal values get equal placeholders, so that ids still match.
The form is that of `tests/recordings/`: NAME.sse is the body, NAME.json tells where it is from.
"""

import json
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from qwen_proxy.upstreams.qwen_web.extras import MEDIA_DOMAINS, MEDIA_HOST
from qwen_proxy.upstreams.qwen_web.wire import is_array, is_object, loads

REDACTED: Final = "REDACTED"
KEPT_HEADERS: Final = frozenset(
    ("content-type", "x-actual-status-code", "server", "cache-control", "x-accel-buffering", "vary")
)
STATE_KEYS: Final = ("action", "finish_reason", "name", "phase", "response_index", "role", "status", "task_status")
FAILURE_KEYS: Final = ("code", "detail", "details", "error", "ret", "template")
KEPT_KEYS: Final = frozenset((*STATE_KEYS, *FAILURE_KEYS, "chat_type", "sub_chat_type", "object", "type"))
ID_KEYS: Final = frozenset(("id", "function_id", "request_id", "user_id"))
MIN_SECRET_CHARACTERS: Final = 4
_JWT: Final = re.compile(r"eyJ[\w-]+(?:\.[\w-]+){1,2}")
_EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_UUID: Final = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
_QUERY: Final = re.compile(r"(https?://[^\s\"'<>?]*)\?[^\s\"'<>]*")
_ADDRESS: Final = re.compile(r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b")
_LONG: Final = re.compile(r"[\w+/=-]{32,}")
_DATA: Final = re.compile(r"(data: ?)?([^\r\n]*)(\r\n|\r|\n)?")


class Exchange(Struct, frozen=True, kw_only=True):
    """One completion as it went. `chunks` are decompressed. `secrets` are texts that must not occur: token, email…"""

    status: int
    headers: tuple[tuple[str, str], ...]
    chunks: tuple[bytes, ...]
    secrets: tuple[str, ...] = ()


class RecordingFacts(Struct, frozen=True, kw_only=True):
    source: str
    section: str
    note: str
    status: int
    headers: dict[str, str]


class Recording(Struct, frozen=True):
    facts: RecordingFacts
    body: bytes

    def write(self, folder: Path, name: str) -> list[Path]:
        """Makes the two files; raises OSError. An existing file is not overwritten: FileExistsError."""
        paths = [folder / f"{name}.json", folder / f"{name}.sse"]
        facts = msgspec.json.format(msgspec.json.encode(self.facts), indent=2) + b"\n"
        for path, content in zip(paths, (facts, self.body), strict=True):
            with path.open("xb") as file:
                file.write(content)
        return paths


def redact(exchange: Exchange, keep_text: bool) -> Recording:
    """The recording of an exchange. Without `keep_text` every letter of what was said becomes an x."""
    redaction = _Redaction(exchange.secrets, keep_text)
    body = b"".join(exchange.chunks).decode("utf-8", "replace")
    facts = RecordingFacts(
        source="captured",
        section="",
        note="texts kept" if keep_text else "texts replaced",
        status=exchange.status,
        headers={
            name: redaction.plain(value) if name.lower() in KEPT_HEADERS else REDACTED
            for name, value in exchange.headers
        },
    )
    return Recording(facts, "".join(_DATA.sub(redaction.line, body)).encode())


class _Redaction:
    """The placeholders of one recording."""

    def __init__(self, secrets: tuple[str, ...], keep_text: bool) -> None:
        self._secrets = sorted((s for s in secrets if len(s) >= MIN_SECRET_CHARACTERS), key=len, reverse=True)
        self._keep_text = keep_text
        self._ids: dict[str, str] = {}

    def line(self, match: re.Match[str]) -> str:
        """One line of the body; the payload of an event or bare JSON is rewritten by its structure."""
        prefix, payload, end = match[1] or "", match[2], match[3] or ""
        return prefix + self._payload(payload) + end

    def _payload(self, payload: str) -> str:
        try:
            value = loads(payload.encode())
        except ValueError:
            is_known = payload in ("", "[DONE]") or payload.startswith((":", "<", "event:", "id:", "retry:"))
            return self.plain(payload) if is_known or self._keep_text else masked(payload)
        tail = payload[len(payload.rstrip()) :]
        return json.dumps(self._value(value, ""), ensure_ascii=False) + tail

    def _value(self, value: object, key: str) -> object:
        if is_array(value):
            return [self._value(item, key) for item in value]
        if is_object(value):
            return {self.plain(name): self._value(item, name) for name, item in value.items()}
        return self._text(value, key) if isinstance(value, str) else value

    def _text(self, value: str, key: str) -> str:
        if key.endswith("_id") or key in ID_KEYS:
            return self._placeholder(value)
        if value.startswith(("http://", "https://")):
            return self._url(value)
        return self.plain(value) if key in KEPT_KEYS or self._keep_text else masked(value)

    def _url(self, url: str) -> str:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return REDACTED
        is_media = host == MEDIA_HOST or host.endswith(MEDIA_DOMAINS)
        if "_____tmd_____" in url or not (is_media or self._keep_text):
            host = "chat.qwen.ai/_____tmd_____/punish" if "_____tmd_____" in url else "example.com"
        suffix = re.search(r"\.(?:png|jpe?g|webp|mp4|gif)\b", url)
        return f"{url.partition(':')[0]}://{host}/{self._placeholder(url)}{suffix[0] if suffix else ''}"

    def plain(self, text: str) -> str:
        """A text that stays, without what must not occur in it."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = _QUERY.sub(rf"\1?{REDACTED}", _JWT.sub(REDACTED, text))
        text = _UUID.sub(lambda match: self._placeholder(match[0]), _EMAIL.sub("someone@example.com", text))
        return _LONG.sub(self._long, _ADDRESS.sub("192.0.2.1", text))

    def _long(self, match: re.Match[str]) -> str:
        return match[0] if match[0] in self._ids.values() else REDACTED

    def _placeholder(self, value: str) -> str:
        if not value:
            return value
        if value not in self._ids:
            self._ids[value] = f"00000000-0000-4000-8000-{len(self._ids) + 1:012}"
        return self._ids[value]


def masked(text: str) -> str:
    """Every letter and digit replaced by one of the same width in the alphabet, so that prefixes stay prefixes."""
    return "".join(("x" if character.isascii() else "é") if character.isalnum() else character for character in text)
