"""Reads recordings and decodes them, in any pieces."""

from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from qwen_proxy.chat.events import Batch, ChatEvent, merged
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.upstreams.openai_api.errors import Judge, classify
from qwen_proxy.upstreams.openai_api.errors import classify_answer as classify_openai
from qwen_proxy.upstreams.openai_api.reply import ReplyReader, is_stream
from qwen_proxy.upstreams.qwen_code_wire import judged
from qwen_proxy.upstreams.qwen_web.codec import ReplyCodec
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.errors import classify_answer, effective_status, is_event_stream

FOLDER: Final = Path(__file__).parent / "qwen_web"
OPENAI_FOLDER: Final = Path(__file__).parent / "openai_compatible"
QWEN_CODE_FOLDER: Final = Path(__file__).parent / "qwen_code"
MODEL: Final = "qwen3.7-plus"
R = TypeVar("R", bound="Recording")


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


class OpenAIRecording(Recording, frozen=True):
    """Of a server that speaks OpenAI's chat completions. Ids that it leaves out are counted."""

    def decode(self, pieces: Iterable[bytes]) -> Expected:
        numbers = count(1)
        reader = ReplyReader(MODEL, lambda: f"made_{next(numbers)}", self.judge)
        events: Batch = []
        error = None
        try:
            if self.facts.status != 200:
                retry_after = self.facts.headers.get("Retry-After")
                raise classify_openai(self.facts.status, self.body, MODEL, retry_after, self.judge)
            if not is_stream(self.body):
                events += reader.whole(self.body)
            else:
                for piece in pieces:
                    events += reader.feed(piece)
                events += reader.finish()
            if reader.failure is not None:
                raise reader.failure
        except ProxyError as failure:
            error = f"{type(failure).__name__}: {failure}"
        return Expected(merged(events), error, [])

    @property
    def judge(self) -> Judge:
        return classify

    @property
    def expected_path(self) -> Path:
        return OPENAI_FOLDER / f"{self.name}.events.json"


class QwenCodeRecording(OpenAIRecording, frozen=True):
    """Of Qwen Code's service: the same protocol, but for what refusals mean."""

    @property
    def judge(self) -> Judge:
        return judged

    @property
    def expected_path(self) -> Path:
        return QWEN_CODE_FOLDER / f"{self.name}.events.json"


def recordings() -> list[Recording]:
    """All of chat.qwen.ai, by name."""
    return _read(FOLDER, Recording)


def openai_recordings() -> list[OpenAIRecording]:
    """All of OpenAI-compatible servers, by name."""
    return _read(OPENAI_FOLDER, OpenAIRecording)


def qwen_code_recordings() -> list[QwenCodeRecording]:
    """All of portal.qwen.ai, by name."""
    return _read(QWEN_CODE_FOLDER, QwenCodeRecording)


def _read(folder: Path, kind: type[R]) -> list[R]:
    return [
        kind(path.stem, msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Facts), path.read_bytes())
        for path in sorted(folder.glob("*.sse"))
    ]


def written(expected: Expected) -> bytes:
    return msgspec.json.format(msgspec.json.encode(expected), indent=2) + b"\n"
