"""What has gone out of a reply that may take several tries, and what the next one is told. Pure.

Whoever taught a model tools, or told it to give JSON, judges its replies (gateway/verdict.py). Then thinking that went
out is no reason against another try: what that thinks goes on behind it. Else the first content is.

| sent so far   | another try, for a failure | another try, for a reply that is unfit |
|---------------|----------------------------|----------------------------------------|
| nothing       | yes                        | yes                                    |
| thinking      | if replies are judged      | yes                                    |
| text          | no                         | yes, its text stands behind            |
| a call, media | no                         | no                                     |
"""

from typing import Final

from msgspec import structs

from qwen_proxy.chat.events import (
    CONTENT,
    Batch,
    ChatEvent,
    ReasoningDelta,
    ReplyStart,
    TextDelta,
)
from qwen_proxy.chat.request import ChatRequest

NOTHING: Final[frozenset[type[ChatEvent]]] = frozenset()


class Progress:
    """Of one request. content, call: whether some has gone out; `content` counts thinking only where it commits.

    hint: for the next try. asked_again: how often the model was told that its reply was unfit.
    """

    __slots__ = ("_apart", "_sent", "_started", "asked_again", "call", "content", "hint", "is_judged")

    def __init__(self, request: ChatRequest) -> None:
        self.is_judged = bool(request.tools) or request.output is not None
        self.content = False
        self.call = False
        self.hint = ""
        self.asked_again = 0
        self._started = False
        self._sent = NOTHING  # the kinds of content that have gone out
        self._apart = NOTHING  # of which this try has not sent any yet

    def next_try(self, request: ChatRequest) -> ChatRequest:
        """The request of the try that begins."""
        self._apart = self._sent
        return structs.replace(request, hint=self.hint) if self.hint else request

    def sending(self, batch: Batch) -> Batch:
        """A batch of the current try as it goes out: one reply has one start, and tries stand apart in it."""
        if len(batch) == 1 and (kind := type(batch[0])) in self._sent and kind not in self._apart:
            return batch  # more of what this try has sent already: the usual case
        if self._started:
            batch = self._following(batch)
        self._started = self._started or bool(batch)
        for event in batch:
            kind = type(event)
            if kind in CONTENT and kind not in self._sent:
                self._note(kind)
        return batch

    def _note(self, kind: type[ChatEvent]) -> None:
        """The first of a kind of content goes out."""
        self._sent |= {kind}
        if kind is ReasoningDelta:
            self.content = self.content or not self.is_judged
        else:
            self.content = True
            self.call = self.call or kind is not TextDelta

    def _following(self, batch: Batch) -> Batch:
        following: Batch = []
        for event in batch:
            if type(event) is ReplyStart:
                continue
            if (type(event) is TextDelta or type(event) is ReasoningDelta) and type(event) in self._apart:
                self._apart -= {type(event)}
                event = type(event)("\n\n" + event.text)
            following.append(event)
        return following
