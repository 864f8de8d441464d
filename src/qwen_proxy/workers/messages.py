"""What a worker and its supervisor say to each other, over one socket pair.

A frame is four bytes of length, big-endian, then MessagePack of one tagged struct. No secret crosses here: accounts and
keys are in the store. `number` is the worker's, new for each question; the answer carries it back.
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

import msgspec
from msgspec import Struct

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024  # more is not a message but a bug
LENGTH_BYTES: Final = 4


class DriftCount(Struct, frozen=True, kw_only=True):
    """How often something upstream was seen that the protocol page does not know; a shape, never content."""

    kind: str
    name: str
    count: int
    first_at: float


class WorkerReport(Struct, frozen=True, kw_only=True):
    """`state`: "starting", "ready" or "retiring"."""

    slot: int
    pid: int
    state: str
    uptime_seconds: float
    memory_bytes: int


class Survey(Struct, frozen=True, kw_only=True):
    """What the supervisor knows of its workers: for diagnostics."""

    workers: tuple[WorkerReport, ...]
    drift: tuple[DriftCount, ...]


# --- from a worker -----------------------------------------------------------------------------------------


class Ready(Struct, frozen=True, tag=True, array_like=True):
    """It accepts connections."""


class SurveyWanted(Struct, frozen=True, tag=True, array_like=True):
    number: int


class DriftSeen(Struct, frozen=True, tag=True, array_like=True):
    """All that this worker has counted since it began."""

    counts: tuple[DriftCount, ...]


FromWorker = Ready | SurveyWanted | DriftSeen

# --- from the supervisor -----------------------------------------------------------------------------------


class Surveyed(Struct, frozen=True, tag=True, array_like=True):
    number: int
    survey: Survey


class Retire(Struct, frozen=True, tag=True, array_like=True):
    """Stop accepting at once; let what runs come to its end, for at most so long."""

    drain_seconds: float


FromSupervisor = Surveyed | Retire

# --- bytes -------------------------------------------------------------------------------------------------

M = TypeVar("M")


ENCODER: Final = msgspec.msgpack.Encoder()


def encode(message: FromWorker | FromSupervisor) -> bytes:
    body = ENCODER.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def worker_decoder() -> msgspec.msgpack.Decoder[FromWorker]:
    return msgspec.msgpack.Decoder(FromWorker)


def supervisor_decoder() -> msgspec.msgpack.Decoder[FromSupervisor]:
    return msgspec.msgpack.Decoder(FromSupervisor)


class Frames(Generic[M]):
    """Messages from bytes, wherever these are cut."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[M]:
        """The messages that are complete now. Raises ValueError (msgspec's are such) when they are none."""
        self._buffer += chunk
        start = 0
        try:
            while len(self._buffer) - start >= LENGTH_BYTES:
                length = int.from_bytes(self._buffer[start : start + LENGTH_BYTES], "big")
                if length > MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of {length} bytes")
                end = start + LENGTH_BYTES + length
                if len(self._buffer) < end:
                    return
                body = bytes(self._buffer[start + LENGTH_BYTES : end])
                start = end
                yield self._decoder.decode(body)
        finally:
            del self._buffer[:start]
