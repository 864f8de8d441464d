"""Reads recordings and decodes them, in any pieces."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.chat.events import Batch, ChatEvent, merged
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.upstreams.qwen_web.codec import ReplyCodec
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.errors import classify_answer, effective_status, is_event_stream

FOLDER: Final = Path(__file__).parent / "qwen_web"
MODEL: Final = "qwen3.7-plus"


class Facts(Struct, frozen=True, forbid_unknown_fields=True):
    """NAME.json."""

    source: str
    section: str
    note: str
    status: int
    headers: dict[str, str]


class Expected(Struct, frozen=True):
    """NAME.events.json."""

    events: list[ChatEvent]
    error: str | None
    drift: list[str]


class Recording(Struct, frozen=True):
    name: str
    facts: Facts
    body: bytes

    def decode(self, pieces: Iterable[bytes]) -> Expected:
        headers = {name.lower(): value for name, value in self.facts.headers.items()}
        status = effective_status(self.facts.status, headers.get("x-actual-status-code"))
        drift = Drift(lambda: 0.0)
        events: Batch = []
        error = None
        try:
            if not is_event_stream(status, headers.get("content-type", ""), self.body):
                raise classify_answer(status, self.body, MODEL, drift)
            codec = ReplyCodec(drift, model=MODEL)
            for piece in pieces:
                events += codec.feed(piece)
            events += codec.finish()
            if codec.failure is not None:
                raise codec.failure
        except ProxyError as failure:
            error = f"{type(failure).__name__}: {failure}"
        return Expected(merged(events), error, [f"{note.kind}: {note.name} ×{note.count}" for note in drift.snapshot()])

    @property
    def expected_path(self) -> Path:
        return FOLDER / f"{self.name}.events.json"


def recordings() -> list[Recording]:
    """All of them, by name."""
    return [
        Recording(path.stem, msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Facts), path.read_bytes())
        for path in sorted(FOLDER.glob("*.sse"))
    ]


def written(expected: Expected) -> bytes:
    return msgspec.json.format(msgspec.json.encode(expected), indent=2) + b"\n"
