"""What the recordings do not show of streamed tool calls."""

from itertools import count

import pytest

from qwen_proxy.chat.events import Batch, TextDelta, ToolArgumentsDelta, ToolCallStart
from qwen_proxy.ground.errors import UpstreamProtocolError
from qwen_proxy.upstreams.openai_api.calls import MOST_CALLS, CallStream
from qwen_proxy.upstreams.openai_api.wire import CallBody, FunctionBody


def stream() -> CallStream:
    numbers = count(1)
    return CallStream(lambda: f"made_{next(numbers)}")


def call(index: int | None, arguments: str, name: str | None = None) -> CallBody:
    return CallBody(index=index, function=FunctionBody(name=name, arguments=arguments))


def test_arguments_go_out_as_they_come() -> None:
    calls, batch = stream(), Batch()
    calls.take([call(0, '{"a"', "f")], batch)
    assert batch == [ToolCallStart("made_1", "f"), ToolArgumentsDelta('{"a"')]
    batch.clear()
    calls.take([call(0, ":1}")], batch)
    assert batch == [ToolArgumentsDelta(":1}")]


def test_a_brace_inside_a_text_ends_nothing() -> None:
    calls, batch = stream(), Batch()
    calls.take([call(0, '{"a": "}', "f"), call(1, "{}", "g")], batch)
    assert batch == [ToolCallStart("made_1", "f"), ToolArgumentsDelta('{"a": "}')]
    batch.clear()
    calls.put(TextDelta("x"), batch)
    assert not batch
    calls.take([call(0, '"} ')], batch)
    assert batch == [
        ToolArgumentsDelta('"} '),
        ToolCallStart("made_2", "g"),
        ToolArgumentsDelta("{}"),
        TextDelta("x"),
    ]
    batch.clear()
    calls.finish(batch)
    assert not batch


def test_what_is_no_call_goes_out_at_once_while_none_is_open() -> None:
    calls, batch = stream(), Batch()
    calls.put(TextDelta("x"), batch)
    assert batch == [TextDelta("x")]


def test_white_space_behind_a_call_is_nothing() -> None:
    calls, batch = stream(), Batch()
    calls.take([call(0, "{}", "f"), call(1, "{}", "g"), call(0, "\n")], batch)
    calls.finish(batch)
    assert [each for each in batch if isinstance(each, ToolArgumentsDelta)] == [ToolArgumentsDelta("{}")] * 2


def test_a_delta_that_names_nothing_belongs_to_the_latest_call() -> None:
    calls, batch = stream(), Batch()
    calls.take(
        [CallBody(id="a", function=FunctionBody(name="f")), CallBody(function=FunctionBody(arguments="{"))], batch
    )
    calls.take([CallBody(id="a", function=FunctionBody(arguments="}")), CallBody()], batch)
    assert batch == [ToolCallStart("a", "f"), ToolArgumentsDelta("{"), ToolArgumentsDelta("}")]


def test_the_first_delta_need_not_have_a_name() -> None:
    calls, batch = stream(), Batch()
    calls.take([CallBody(index=0, id="a")], batch)
    calls.take([call(0, "{}", "f")], batch)
    assert batch == [ToolCallStart("a", "f"), ToolArgumentsDelta("{}")]


def test_calls_have_a_limit() -> None:
    calls, batch = stream(), Batch()
    with pytest.raises(UpstreamProtocolError):
        calls.take([call(index, "{}", "f") for index in range(MOST_CALLS + 1)], batch)
    assert len([each for each in batch if isinstance(each, ToolCallStart)]) == MOST_CALLS
