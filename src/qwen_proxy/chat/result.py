"""A whole reply, folded from its events: what a caller who does not stream gets."""

from collections.abc import Iterable, Sequence
from typing import assert_never

from msgspec import Raw, Struct, structs

from qwen_proxy.chat.events import (
    ChatEvent,
    Finish,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    Source,
    SourcesFound,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
    UsageOrigin,
    joined_logprobs,
)


class Reasoned(Struct, frozen=True):
    text: str


class Said(Struct, frozen=True):
    """`logprobs`: as TextDelta has them."""

    text: str
    logprobs: Raw | None = None


class Called(Struct, frozen=True):
    call_id: str
    name: str
    arguments: str


ResultPart = Reasoned | Said | Called | MediaOutput


class ChatResult(Struct, frozen=True, kw_only=True):
    """`parts` keeps the order in which they came; neighbouring deltas of one kind are one part."""

    parts: tuple[ResultPart, ...]
    sources: tuple[Source, ...]
    usage: Usage | None
    finish: Finish
    queries: tuple[str, ...] = ()  # of searches

    @property
    def logprobs(self) -> Raw | None:
        """Of all text."""
        return joined_logprobs(part.logprobs for part in self.parts if isinstance(part, Said))

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Said))

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Reasoned))


class Folder:
    """Takes a reply's events as they come; `result()` once it is over."""

    def __init__(self) -> None:
        self._parts: list[ResultPart] = []
        self._open: Reasoned | Said | Called | None = None
        self._pieces: list[str] = []
        self._sources: list[Source] = []
        self._queries: list[str] = []
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._logprobs: list[Raw] = []  # of the open part

    def feed(self, events: Iterable[ChatEvent]) -> None:
        for event in events:
            self._one(event)

    def result(self) -> ChatResult:
        """Raises ValueError while the reply has no Finish."""
        self._close()
        if self._finish is None:
            raise ValueError("the reply has no Finish")
        return ChatResult(
            parts=tuple(self._parts),
            sources=tuple(self._sources),
            queries=tuple(self._queries),
            usage=self._usage,
            finish=self._finish,
        )

    def _one(self, event: ChatEvent) -> None:
        match event:
            case TextDelta(text, logprobs):
                self._append(Said, text)
                if logprobs is not None:
                    self._logprobs.append(logprobs)
            case ReasoningDelta(text):
                self._append(Reasoned, text)
            case ToolArgumentsDelta(text):
                self._pieces.append(text)
            case ToolCallStart(call_id, name):
                self._close()
                self._open = Called(call_id, name, "")
            case MediaOutput():
                self._close()
                self._parts.append(event)
            case SourcesFound(sources, queries):
                self._sources += sources
                self._queries += queries
            case Usage():
                self._usage = event
            case Finish():
                self._finish = event
            case ReplyStart():
                pass
            case _:
                assert_never(event)

    def _append(self, kind: type[Said | Reasoned], text: str) -> None:
        if type(self._open) is not kind:
            self._close()
            self._open = kind("")
        self._pieces.append(text)

    def _close(self) -> None:
        text = "".join(self._pieces)
        match self._open:
            case Said():
                self._parts.append(Said(text, joined_logprobs(self._logprobs)))
                self._logprobs.clear()
            case Reasoned():
                self._parts.append(Reasoned(text))
            case Called(call_id, name):
                self._parts.append(Called(call_id, name, text))
            case None:
                pass
            case _:
                assert_never(self._open)
        self._open = None
        self._pieces.clear()


def usage_of_all(usages: Sequence[Usage | None], choices: int) -> Usage | None:
    """What the replies to several prompts used together, which come one prompt after the other, `choices` for each.

    None where nothing is known of any.
    """
    groups = (usages[first : first + choices] for first in range(0, len(usages), choices))
    known = [[usage for usage in group if usage is not None] for group in groups]
    totals = [total_usage(group) for group in known if group]
    if not totals:
        return None
    return structs.replace(
        total_usage(totals),
        prompt_tokens=sum(usage.prompt_tokens for usage in totals),
        cached_tokens=sum(usage.cached_tokens for usage in totals),
    )


def total_usage(usages: Sequence[Usage]) -> Usage:
    """What several replies to one request used together (one at least); the prompt counts once, as OpenAI has it."""
    if len(usages) == 1:
        return usages[0]
    return Usage(
        prompt_tokens=max(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        cached_tokens=max(usage.cached_tokens for usage in usages),
        origin=next((usage.origin for usage in usages if usage.origin is UsageOrigin.COUNTED), UsageOrigin.UPSTREAM),
    )
