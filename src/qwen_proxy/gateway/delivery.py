"""How reasoning and search results reach a client, as the operator decides. Pure.

It stands behind gateway/limits.py, so nothing that is added here counts as the model's own text.

- Reasoning is passed on, dropped, or written into the text as `<think>\\n...\\n</think>\\n\\n`.
- Search results always pass as SourcesFound. Besides, each is written once as a *block*, numbered over all of them as
  the model's own `[[1]]` is (upstream protocol §5.1); what the block looks like and where it stands follows §5.2:

| when                                            | table               | text                     |
|-------------------------------------------------|---------------------|--------------------------|
| reasoning is delivered, at its first text       | before it, in it    | before it, in it         |
| the answer begins, with results unwritten       | before it           | –                        |
| the reply ends, after some answer               | –                   | behind it, after a `---` |

State, and what is written when an event comes (besides the event itself):

| state     | reasoning                    | text                          | call, media, usage, finish   |
|-----------|------------------------------|-------------------------------|------------------------------|
| begun     | (block) → thinking           | (table) → answering           | – → begun                    |
| thinking  | – → thinking                 | `</think>` (table) → answering| `</think>` → begun           |
| answering | `<think>` → thinking         | – → answering                 | (list, at the end) → same    |
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct, structs

from qwen_proxy.chat import markdown
from qwen_proxy.chat.events import (
    Batch,
    Finish,
    MediaOutput,
    ReasoningDelta,
    Source,
    SourcesFound,
    TextDelta,
    ToolCallStart,
    Usage,
)
from qwen_proxy.config.choices import SearchInfo


class Delivery(Struct, frozen=True, kw_only=True):
    """`reasoning_in_content` counts only where `show_reasoning`."""

    show_reasoning: bool = True
    reasoning_in_content: bool = False
    search_info: SearchInfo = SearchInfo.TABLE


def of_json(delivery: Delivery) -> Delivery:
    """The same for a reply that has to be bare JSON: nothing is written into its text."""
    return structs.replace(delivery, reasoning_in_content=False, search_info=SearchInfo.NONE)


THINK_OPENS: Final = "<think>\n"
THINK_CLOSES: Final = "\n</think>\n\n"


class Deliverer:
    """One reply's events, as they are delivered.

    is_answering: text was the last that came, so more of it would go out as it is.
    """

    __slots__ = ("_answered", "_delivery", "_reasoned", "_sources", "_thinking", "_written", "is_answering")

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self.is_answering = False
        self._thinking = False  # delivered reasoning was
        self._reasoned = False  # some was delivered
        self._answered = False  # some text came
        self._sources: list[Source] = []
        self._written = 0

    def apply(self, batch: Batch) -> Batch:
        delivered: Batch = []
        for event in batch:
            if type(event) is TextDelta:
                if not self.is_answering and event.text:
                    self._begin_answer(delivered)
            elif type(event) is ReasoningDelta:
                if self._delivery.show_reasoning and event.text:
                    self._reason(event.text, delivered)
                continue
            elif type(event) is SourcesFound:
                self._sources += event.sources
            elif self._thinking and (type(event) is ToolCallStart or type(event) is MediaOutput):
                self._close_reasoning(delivered)
            elif (self._thinking or self._sources) and (type(event) is Usage or type(event) is Finish):
                self._end(delivered)
            delivered.append(event)
        return delivered

    def _reason(self, text: str, delivered: Batch) -> None:
        if self._sources and not self._reasoned and (block := self._block()):
            text = f"{block}\n\n{text}"
        if self._delivery.reasoning_in_content:
            delivered.append(TextDelta(text if self._thinking else THINK_OPENS + text))
        else:
            delivered.append(ReasoningDelta(text))
        self._thinking = self._reasoned = True
        self.is_answering = False

    def _begin_answer(self, delivered: Batch) -> None:
        if self._thinking:
            self._close_reasoning(delivered)
        wants_table = not self._answered and self._delivery.search_info is SearchInfo.TABLE
        if self._sources and wants_table and (block := self._block()):
            delivered.append(TextDelta(f"{block}\n\n"))
        self.is_answering = self._answered = True

    def _end(self, delivered: Batch) -> None:
        self._close_reasoning(delivered)
        if self._answered and self._delivery.search_info is SearchInfo.TEXT and (block := self._block()):
            delivered.append(TextDelta(f"\n\n---\n{block}"))

    def _close_reasoning(self, delivered: Batch) -> None:
        if self._thinking and self._delivery.reasoning_in_content:
            delivered.append(TextDelta(THINK_CLOSES))
        self._thinking = False

    def _block(self) -> str:
        """What was found and not written yet; empty if there is nothing, or nothing is to be written."""
        first, self._written = self._written, len(self._sources)
        return block(self._sources[first:], self._delivery.search_info, first=first + 1)


def block(sources: Sequence[Source], mode: SearchInfo, *, first: int = 1) -> str:
    """The sources as Markdown, numbered from `first`, without a line feed at the end."""
    if not sources or mode is SearchInfo.NONE:
        return ""
    rows = [
        (
            number,
            markdown.link(source.title or source.url, source.url),
            markdown.label(source.site or _host(source.url)),
        )
        for number, source in enumerate(sources, first)
    ]
    if mode is SearchInfo.TEXT:
        return "\n".join(f"[{number}] {link} | source: {site}" for number, link, site in rows)
    head = ["| **#** | **Site** | **Source** |", "|:---|:---|:---|"]
    return "\n".join(head + [f"| {number} | {link} | {site} |" for number, link, site in rows])


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
