"""One attempt's reply on its way to the client: limits, delivery, and what is held back until there is content.

| state | a batch without content | with content | with Finish |
|---|---|---|---|
| pending | held | all that was held goes out with it: committed | the same, and over |
| committed | goes out | goes out | goes out: over |
"""

import io

from qwen_proxy.chat.counting import TokenCounter
from qwen_proxy.chat.events import (
    Batch,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
    has_content,
)
from qwen_proxy.chat.request import Sampling
from qwen_proxy.gateway.delivery import Deliverer, Delivery
from qwen_proxy.gateway.limits import Limiter


class ReplyShaper:
    """`take` each read of the upstream in order until `finish` is set, then `end` once with the usage.

    one_call: calls behind the first are dropped, since not every server keeps to `parallel_tool_calls`.
    usage: what the upstream said, None when it said nothing or was cut short here by a limit.
    """

    __slots__ = (
        "_calls",
        "_deliverer",
        "_drops_call",
        "_has_call",
        "_limiter",
        "_one_call",
        "_pending",
        "_reasoning",
        "_text",
        "finish",
        "usage",
    )

    def __init__(
        self, sampling: Sampling, delivery: Delivery, counter: TokenCounter, *, one_call: bool = False
    ) -> None:
        self._one_call = one_call
        self._has_call = False
        self._drops_call = False  # the one that is open
        self._limiter = Limiter(sampling.stop, sampling.max_tokens, counter) if sampling.is_limited else None
        self._deliverer = Deliverer(delivery)
        self._pending: Batch | None = []
        self._text = io.StringIO()
        self._reasoning: io.StringIO | None = None  # most replies have none, nor calls
        self._calls: io.StringIO | None = None
        self.usage: Usage | None = None
        self.finish: Finish | None = None

    @property
    def text(self) -> str:
        """The answer so far, as the model wrote it."""
        return self._text.getvalue()

    @property
    def reasoning(self) -> str:
        return "" if self._reasoning is None else self._reasoning.getvalue()

    @property
    def calls(self) -> str:
        """Names and arguments of calls, one behind the other: for counting."""
        return "" if self._calls is None else self._calls.getvalue()

    @property
    def size_bytes(self) -> int:
        """Of answer, reasoning and calls, so far."""
        return len((self.text + self.reasoning + self.calls).encode(errors="surrogatepass"))

    def take(self, read: Batch) -> Batch:
        """Shape one read. Returns what may go out now; what the last read brings stays for `end`."""
        if self._limiter is not None:
            read = self._limiter.apply(read)
        elif len(read) == 1 and self._pending is None and self._deliverer.is_answering:
            event = read[0]
            if type(event) is TextDelta:  # a token in the middle of an answer: the usual case
                self._text.write(event.text)
                return read
        batch = self._deliverer.apply(self._kept(read))
        return batch if self._pending is None else self._held(self._pending, batch)

    def end(self, usage: Usage) -> Batch:
        """The last batch: what is still held, the usage and the finish."""
        assert self.finish is not None
        last = self._deliverer.apply([usage, self.finish])
        held, self._pending = self._pending, None
        return held + last if held else last

    def _kept(self, read: Batch) -> Batch:
        """What of a read goes on to the client; usage and finish wait for `end`."""
        kept: Batch = []
        for event in read:
            if type(event) is TextDelta:
                self._text.write(event.text)
            elif type(event) is Usage:
                self.usage = event
                continue
            elif type(event) is Finish:
                self.finish = event
                continue
            elif type(event) is ReasoningDelta:
                self._reasoning = self._reasoning or io.StringIO()
                self._reasoning.write(event.text)
            elif type(event) is ToolCallStart or type(event) is ToolArgumentsDelta:
                self._note_call(event)
                if self._drops_call:
                    continue
            kept.append(event)
        return kept

    def _note_call(self, event: ToolCallStart | ToolArgumentsDelta) -> None:
        if isinstance(event, ToolCallStart):
            self._drops_call = self._one_call and self._has_call
            self._has_call = True
        if not self._drops_call:
            self._calls = self._calls or io.StringIO()
            self._calls.write(event.name if isinstance(event, ToolCallStart) else event.text)

    def _held(self, pending: Batch, batch: Batch) -> Batch:
        """What may go out by now of a reply from which nothing has."""
        pending += batch
        if not has_content(batch):
            return []
        self._pending = None
        return pending
