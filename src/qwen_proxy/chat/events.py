"""What a reply is made of, in our own words. One is made per token: plain frozen Structs.

Legal order (chat/grammar.py checks it): ReplyStart, then parts, at most one Usage, exactly one Finish, nothing after.
One part is open at a time; the next kind of event, or a new ToolCallStart, closes it.

No event has subclasses, so what looks at each one asks `type(event) is TextDelta`: `isinstance` costs five times that
where it is another class.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, final

from msgspec import Raw, Struct


@final
class ReplyStart(Struct, frozen=True, tag="reply_start"):
    """Opens every reply. `reply_id` is the upstream's own, empty where it has none."""

    reply_id: str = ""


@final
class ReasoningDelta(Struct, frozen=True, tag="reasoning"):
    text: str


@final
class TextDelta(Struct, frozen=True, omit_defaults=True, tag="text"):
    """`logprobs` is the array of OpenAI's `logprobs.content` for this text, as an upstream wrote it."""

    text: str
    logprobs: Raw | None = None


@final
class ToolCallStart(Struct, frozen=True, tag="tool_call"):
    call_id: str
    name: str


@final
class ToolArgumentsDelta(Struct, frozen=True, tag="tool_arguments"):
    """A piece of the open call's arguments: what was sent so far is a prefix of the final, valid JSON."""

    text: str


class MediaKind(StrEnum):
    IMAGE = "image"
    VIDEO = "video"


@final
class MediaOutput(Struct, frozen=True, tag="media"):
    """A finished picture or clip; `url` is https on one of the upstream's own media hosts."""

    kind: MediaKind
    url: str


class Source(Struct, frozen=True):
    """A search result. Only `url` is always there."""

    url: str
    title: str = ""
    snippet: str = ""
    site: str = ""
    date: str = ""


@final
class SourcesFound(Struct, frozen=True, omit_defaults=True, tag="sources"):
    """New search results, in first-seen order; a later event adds to the earlier ones.

    queries: what is searched for, where the upstream tells; it may come before the results.
    """

    sources: tuple[Source, ...]
    queries: tuple[str, ...] = ()


class UsageOrigin(StrEnum):
    UPSTREAM = "upstream"
    COUNTED = "counted"  # with Qwen's tokenizer, here


@final
class Usage(Struct, frozen=True, kw_only=True, tag="usage"):
    """Tokens of the whole reply. `completion_tokens` includes `reasoning_tokens`."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    origin: UsageOrigin = UsageOrigin.UPSTREAM


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@final
class Finish(Struct, frozen=True, tag="finish"):
    """`stop_sequence` is the one that ended the reply, if one did."""

    reason: FinishReason
    stop_sequence: str | None = None


ChatEvent = (
    ReplyStart
    | ReasoningDelta
    | TextDelta
    | ToolCallStart
    | ToolArgumentsDelta
    | MediaOutput
    | SourcesFound
    | Usage
    | Finish
)

Batch = list[ChatEvent]  # what one read of the upstream held; may be empty

CONTENT: Final = frozenset((ReasoningDelta, TextDelta, ToolCallStart, MediaOutput))  # what commits a reply once sent


def has_content(batch: Batch) -> bool:
    for event in batch:  # noqa: SIM110  - a generator costs more than all that it would look at
        if type(event) in CONTENT:
            return True
    return False


def joined_logprobs(arrays: Iterable[Raw | None]) -> Raw | None:
    """One array of what stands in several; None where there is none at all."""
    inner = [bytes(array).strip()[1:-1].strip() for array in arrays if array is not None]
    return Raw(b"[" + b",".join(each for each in inner if each) + b"]") if inner else None


def merged(events: Batch) -> Batch:
    """The same reply with neighbouring deltas of one kind joined: two splits of one reply merge to equals."""
    result: Batch = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            result[-1] = TextDelta(last.text + event.text, joined_logprobs((last.logprobs, event.logprobs)))
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            result[-1] = ReasoningDelta(last.text + event.text)
        elif isinstance(event, ToolArgumentsDelta) and isinstance(last, ToolArgumentsDelta):
            result[-1] = ToolArgumentsDelta(last.text + event.text)
        elif isinstance(event, SourcesFound) and isinstance(last, SourcesFound):
            result[-1] = SourcesFound(last.sources + event.sources, last.queries + event.queries)
        else:
            result.append(event)
    return result
