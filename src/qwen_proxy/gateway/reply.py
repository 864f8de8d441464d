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
        self._reasoning = io.StringIO()
        self._calls = io.StringIO()
        self.usage: Usage | None = None
        self.finish: Finish | None = None

    @property
    def text(self) -> str:
        """The answer so far, as the model wrote it."""
        return self._text.getvalue()

    @property
    def reasoning(self) -> str:
        return self._reasoning.getvalue()

    @property
    def calls(self) -> str:
        """Names and arguments of calls, one behind the other: for counting."""
        return self._calls.getvalue()

    @property
    def size_bytes(self) -> int:
        """Of answer, reasoning and calls, so far."""
        parts = (self._text, self._reasoning, self._calls)
        return sum(len(written.getvalue().encode(errors="surrogatepass")) for written in parts)

    def take(self, read: Batch) -> Batch:
        """Shape one read. Returns what may go out now; what the last read brings stays for `end`."""
        if self._limiter is not None:
            read = self._limiter.apply(read)
        elif len(read) == 1 and self._pending is None and self._deliverer.is_answering:
            event = read[0]
            if isinstance(event, TextDelta):  # a token in the middle of an answer: the usual case
                self._text.write(event.text)
                return read
        batch: Batch = []
        for event in read:
            if isinstance(event, TextDelta):
                self._text.write(event.text)
            elif isinstance(event, ReasoningDelta):
                self._reasoning.write(event.text)
            elif isinstance(event, ToolArgumentsDelta):
                if self._drops_call:
                    continue
                self._calls.write(event.text)
            elif isinstance(event, ToolCallStart):
                self._drops_call = self._one_call and self._has_call
                self._has_call = True
                if self._drops_call:
                    continue
                self._calls.write(event.name)
            elif isinstance(event, Usage):
                self.usage = event
                continue
            elif isinstance(event, Finish):
                self.finish = event
                continue
            batch.append(event)
        return self._release(self._deliverer.apply(batch), over=False)

    def end(self, usage: Usage) -> Batch:
        """The last batch: what is still held, the usage and the finish."""
        assert self.finish is not None
        return self._release(self._deliverer.apply([usage, self.finish]), over=True)

    def _release(self, batch: Batch, *, over: bool) -> Batch:
        pending = self._pending
        if pending is None:
            return batch
        pending += batch
        if not over and not has_content(batch):
            return []
        self._pending = None
        return pending
