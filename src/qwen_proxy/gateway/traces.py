"""What became of the requests of the last hour, for who asks by request id: in the store, so that any process knows.

Nothing of what was said is kept, no argument, no result: names, counts and verdicts. Gathered in memory and written
each second, many in one record, since a record costs a short request more than most of what is done for it. Records
stand in the order of time, and a request's identity tells when it came, so that who looks for it reads few. What a
killed process had not written is lost, and so is what comes while the store is away for long.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from types import TracebackType
from typing import Final, Self

from msgspec import Struct

from qwen_proxy.gateway.prompted_tools import ToolReply
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.ground.request_id import came_at
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import TRACE
from qwen_proxy.state.store import Store
from qwen_proxy.state.vault import Vault

log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 3600.0
FLUSH_SECONDS: Final = 1.0
MOST_WAITING: Final = 10_000
AT_ONCE: Final = 200  # in one record
PAGE: Final = 50  # records that are read at once
PLACE_DIGITS: Final = 16
SKEW_SECONDS: Final = 5.0  # by which clocks of machines may differ
MOST_NAME_CHARS: Final = 64  # of a name that a model made up


class ToolsTraced(Struct, frozen=True, kw_only=True):
    """Of the last try. form: that was taught. tier, signature_bytes: how the tools were told. calls: names of those
    made, in order. forms: how they were written, and how often; repairs, dropped: reasons, and how often.

    invalid: names of calls that could not be made. The rest as in `toolcalls.report.ReadingReport` and
    `toolcalls.conversation.Told`.
    """

    form: str
    tier: str
    signature_bytes: int
    calls: tuple[str, ...] = ()
    forms: Mapping[str, int] = {}
    repairs: Mapping[str, int] = {}
    dropped: Mapping[str, int] = {}
    invalid: tuple[str, ...] = ()
    cut: bool = False
    runaway: bool = False
    result_invented: bool = False
    call_in_thinking: bool = False
    intercepted: int = 0
    trimmed_results: int = 0
    hidden_images: int = 0
    unpaired: int = 0
    repeats_calls: bool = False


class TraceDocument(Struct, frozen=True, kw_only=True):
    """One request. key_id: whose it was. ended_at: Unix seconds. failures: error classes of tries; verdicts: on replies
    that were unfit (docs/tool-calls.md)."""

    request_id: str
    key_id: str
    ended_at: float
    model: str
    backend: str
    tries: int
    has_failed: bool
    failures: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    tools: ToolsTraced | None = None


class TraceBatch(Struct, frozen=True):
    """What was written at once."""

    traces: tuple[TraceDocument, ...]


class TraceBook:
    """Writes each second while it is entered, and once more when it is left."""

    def __init__(self, store: Store, vault: Vault, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._batches = Collection(store, TRACE, TraceBatch, vault)
        self._waiting: dict[str, TraceDocument] = {}
        self._is_away = False
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        self._tasks.spawn(self._run(), name="traces")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.__aexit__(kind, error, trace)
        await self.flush()

    def note(self, trace: Trace, *, key_id: str, has_failed: bool) -> None:
        """A request is over. Beyond what may wait the oldest is forgotten."""
        if len(self._waiting) >= MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[trace.request_id] = TraceDocument(
            request_id=trace.request_id,
            key_id=key_id,
            ended_at=self._clock.now(),
            model=trace.model,
            backend=trace.backend,
            tries=trace.tries,
            has_failed=has_failed,
            failures=tuple(trace.failures),
            verdicts=tuple(trace.verdicts),
            tools=None if trace.tools is None else _traced(trace.tools),
        )

    async def find(self, request_id: str) -> TraceDocument | None:
        """Raises StoreUnavailable."""
        if (waiting := self._waiting.get(request_id)) is not None:
            return waiting
        marks, after = request_id.encode(errors="replace"), _place(came_at(request_id) - SKEW_SECONDS)
        while page := await self._store.find(TRACE, after=after, limit=PAGE):
            # A search of the bytes costs less than to decode what holds it not.
            for entry in self._batches.readable(record for record in page if marks in record.value):
                for document in entry.value.traces:
                    if document.request_id == request_id:
                        return document
            after = page[-1].id
        return None

    async def flush(self) -> None:
        # No more than wait now: of many requests some come during each write, and would be written few by few.
        left = len(self._waiting)
        try:
            while left > 0:
                traces = tuple(islice(self._waiting.values(), min(left, AT_ONCE)))
                left -= len(traces)
                id = _place(self._clock.now()) + self._ids.token(PLACE_DIGITS)
                await self._store.write([self._batches.put(id, TraceBatch(traces), lasts_seconds=KEPT_SECONDS)])
                for trace in traces:
                    if self._waiting.get(trace.request_id) is trace:  # else it was noted anew meanwhile
                        del self._waiting[trace.request_id]
            self._is_away = False
        except StoreUnavailable as error:
            if not self._is_away:
                log.warning("traces not written yet", extra={"rows": len(self._waiting), "reason": str(error)})
            self._is_away = True

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            await self.flush()


def _place(at: float) -> str:
    """Where the records of a second begin. at: Unix seconds."""
    return f"{max(0, int(at)):010d}."


def _traced(reply: ToolReply) -> ToolsTraced:
    report, told, described = reply.report, reply.told, reply.compiled.described
    return ToolsTraced(
        form=reply.form_id,
        tier=described.tier.value,
        signature_bytes=described.size_bytes,
        calls=tuple(call.name for call in report.calls),
        forms=dict(Counter(call.form for call in report.calls)),
        repairs=dict(report.repairs),
        dropped=dict(report.dropped),
        invalid=tuple(call.name[:MOST_NAME_CHARS] for call in report.invalid),
        cut=report.cut,
        runaway=report.runaway,
        result_invented=report.result_invented,
        call_in_thinking=report.call_in_thinking,
        intercepted=report.intercepted,
        trimmed_results=told.trimmed_results,
        hidden_images=told.hidden_images,
        unpaired=told.unpaired,
        repeats_calls=told.repeats_calls,
    )


def tools_header(reply: ToolReply) -> str:
    """What a client is told of how its tools were told; ASCII."""
    described, told = reply.compiled.described, reply.told
    facts = [described.tier.value, f"bytes={described.size_bytes}"]
    for name, count in (("trimmed", told.trimmed_results), ("images-hidden", told.hidden_images)):
        facts += [f"{name}={count}"] if count else []
    return "; ".join([*facts, "repeated"] if told.repeats_calls else facts)
