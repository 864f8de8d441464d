"""A whole reply, folded from its events: what a caller who does not stream gets."""

from collections.abc import Iterable, Sequence
from typing import assert_never, final

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


@final
class Reasoned(Struct, frozen=True):
    text: str


@final
class Said(Struct, frozen=True):
    """`logprobs`: as TextDelta has them."""

    text: str
    logprobs: Raw | None = None


@final
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
        told = [part.logprobs for part in self.parts if type(part) is Said and part.logprobs is not None]
        return joined_logprobs(told) if told else None

    @property
    def text(self) -> str:
        return "".join([part.text for part in self.parts if type(part) is Said])

    @property
    def reasoning(self) -> str:
        return "".join([part.text for part in self.parts if type(part) is Reasoned])


class Folder:
    """Takes a reply's events as they come; `result()` once it is over."""

    def __init__(self) -> None:
        self._parts: list[ResultPart] = []
        self._open: type[Said | Reasoned] | ToolCallStart | None = None
        self._pieces: list[str] = []
        self._sources: list[Source] = []
        self._queries: list[str] = []
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._logprobs: list[Raw] = []  # of the open part

    def feed(self, events: Iterable[ChatEvent]) -> None:
        for event in events:
            if type(event) is TextDelta:
                if self._open is not Said:
                    self._close()
                    self._open = Said
                self._pieces.append(event.text)
                if event.logprobs is not None:
                    self._logprobs.append(event.logprobs)
            elif type(event) is ReasoningDelta:
                if self._open is not Reasoned:
                    self._close()
                    self._open = Reasoned
                self._pieces.append(event.text)
            elif type(event) is Usage:
                self._usage = event
            elif type(event) is Finish:
                self._finish = event
            elif type(event) is not ReplyStart:
                self._take(event)

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

    def _take(self, event: ToolArgumentsDelta | ToolCallStart | MediaOutput | SourcesFound) -> None:
        match event:
            case ToolArgumentsDelta(text):
                self._pieces.append(text)
            case ToolCallStart():
                self._close()
                self._open = event
            case MediaOutput():
                self._close()
                self._parts.append(event)
            case SourcesFound(sources, queries):
                self._sources += sources
                self._queries += queries
            case _:
                assert_never(event)

    def _close(self) -> None:
        """What is open, if something is, becomes a part."""
        part, text = self._open, "".join(self._pieces)
        if part is Said:
            self._parts.append(Said(text, joined_logprobs(self._logprobs) if self._logprobs else None))
            self._logprobs.clear()
        elif part is Reasoned:
            self._parts.append(Reasoned(text))
        elif type(part) is ToolCallStart:
            self._parts.append(Called(part.call_id, part.name, text))
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
