"""Any split of a reply's texts and batches folds to one result, and is encoded to the same content."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    FinishReason,
    ReasoningDelta,
    ReplyStart,
    Source,
    SourcesFound,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    merged,
)
from qwen_proxy.chat.result import Folder
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.openai_chat import ChunkEncoder

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PARTS = st.lists(
    st.tuples(st.sampled_from([TextDelta, ReasoningDelta, ToolArgumentsDelta]), TEXT)
    | st.just((SourcesFound, "https://x")),
    max_size=8,
)


def whole(parts: list[tuple[type[ChatEvent], str]]) -> list[list[ChatEvent]]:
    """Each part's events, undivided."""
    events: list[list[ChatEvent]] = []
    for kind, text in parts:
        if kind is ToolArgumentsDelta:
            events.append([ToolCallStart("c", "f"), ToolArgumentsDelta(text)])
        elif kind is SourcesFound:
            events.append([SourcesFound((Source(text),))])
        else:
            events.append([ReasoningDelta(text) if kind is ReasoningDelta else TextDelta(text)])
    return events


def divided(data: st.DataObject, event: ChatEvent) -> list[ChatEvent]:
    if not isinstance(event, TextDelta | ReasoningDelta | ToolArgumentsDelta):
        return [event]
    cut = data.draw(st.integers(0, len(event.text)))
    return [type(event)(event.text[:cut]), type(event)(event.text[cut:])]


def content(written: bytes) -> tuple[str, str, str]:
    """Text, reasoning and arguments of all chunks."""
    text, reasoning, arguments = "", "", ""
    for frame in written.split(b"\n\n")[:-1]:
        for choice in msgspec.json.decode(frame.removeprefix(b"data: "))["choices"]:
            text += choice["delta"].get("content", "")
            reasoning += choice["delta"].get("reasoning_content", "")
            for call in choice["delta"].get("tool_calls", []):
                arguments += call["function"]["arguments"]
    return text, reasoning, arguments


@given(st.data(), PARTS)
def test_the_split_of_a_reply_does_not_matter(data: st.DataObject, parts: list[tuple[type[ChatEvent], str]]):
    end = Finish(FinishReason.STOP)
    undivided: Batch = [ReplyStart(), *(event for events in whole(parts) for event in events), end]
    pieces: Batch = [piece for event in undivided for piece in divided(data, event)]
    facts = ReplyFacts(reply_id="1", request_id="1", created_at=1, model="q")
    at_once, in_pieces = Folder(), Folder()
    at_once.feed(undivided)
    one, other = (ChunkEncoder(facts, 0, include_usage=False) for _ in range(2))
    written = b""
    for piece in pieces:
        in_pieces.feed([piece])
        written += one.encode([piece])
    assert at_once.result() == in_pieces.result()
    assert merged([piece for piece in pieces if getattr(piece, "text", "x")]) == merged(undivided)
    assert content(written) == content(other.encode(undivided))
