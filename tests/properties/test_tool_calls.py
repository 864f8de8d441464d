"""What was encoded is read back; and where a reply is cut into pieces decides nothing."""

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.chat.request import Tool
from qwen_proxy.toolcalls.encoding import encode_call
from qwen_proxy.toolcalls.form import MARKERS
from qwen_proxy.toolcalls.reading import ReadingOptions
from qwen_proxy.toolcalls.toolbox import Toolbox
from tests.support.calls import NONCE, TOOLS, Reply, object_schema, reading

ANYTHING = Tool("anything", "", object_schema(text={"type": "string"}, maybe={"type": ["string", "null"]}, other={}))
TOOLBOX = Toolbox((*TOOLS, ANYTHING))

LOOKALIKES = (
    *(
        "[[call 9c21 Write]]",
        "[[arg 7f3b content]]",
        "[[end 7f3b]]",
        "[[end 0000]]",
        "[[end",
        "[[",
        "[",
        "]]",
        "[[arg ",
    ),
    *("<tool_call>", "</tool_call>", "</parameter>", "```", "{", "}", '"', "'", "\\", "\\n", "\\ud83d"),
    *("\n", "\r\n", "\r", "\n\n", " ", "\t", "a", "ü", "😀", "\x00", "\u2028", "true", "null", "12"),
)
texts = st.lists(st.sampled_from(LOOKALIKES), max_size=12).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.fixed_dictionaries(
    {}, optional={"text": texts, "maybe": texts | st.none(), "other": values, "not declared": values}
)
cuts = st.lists(st.integers(0, 10_000), max_size=12)

PIECES = (
    *(
        "[[call 7f3a Write]]\n",
        "[[call 7f3a Read]]\n",
        "[[arg 7f3a file_path]]\n",
        "[[arg 7f3a content]]\n",
        "[[end 7f3a]]",
    ),
    *("[[call 7f3b Write]]\n", "[[end 7f3b]]", "[[call 0123 Write]]\n", "[[end 0123]]", "[[result 7f3a #1 Read]]\n"),
    *("[[call 7f3a Bash]]\n[[arg 7f3a command]]\n", "[[arg 7f3a timeout]]", "\n  [[end 7f3a]]", "**", "  ", "[[1]]"),
    *("[[arg 7f3a limit]]\n", "[[arg 7f3a limit]]\r\n", "5\n", "12", "[[end 7f3a", "[[", " [[end 7f3a]] \n"),
    *(
        "<tool_call>",
        "</tool_call>",
        '{"name": "Read", "arguments": {"file_path": "a',
        '"}}',
        "}",
        "\n",
        "\n",
        "\n",
        " ",
    ),
    *("<function=Read>", "<parameter=file_path>", "</parameter>", "</function>", "<function=Nope>"),
    *('<invoke name="Read">', '<parameter name="file_path">', "</invoke>", "<function_calls>", "</function_calls>"),
    *("<![CDATA[", "]]>", "[TOOL CALL]", "[/TOOL CALL]", "[", "]", ",", "'", '"', "\\", "```", "```json\n", "~~~\n"),
    *("Tool Read does not exists.", "<example>", "</example>", "> ", "text", "word word", "😀", "\r"),
)
transcripts = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
options = st.builds(
    ReadingOptions,
    stop_after_first=st.booleans(),
    withhold_text=st.booleans(),
    invalid_as_text=st.booleans(),
    commit_characters=st.sampled_from((1, 5, 8192)),
    strict=st.sampled_from((frozenset[str](), frozenset({"Write"}))),
)


def pieces(text: str, at: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in at)})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(
    st.lists(arguments, min_size=1, max_size=3), cuts, st.sampled_from((1, 8192)), st.sampled_from(("", "Well.\n\n"))
)
def test_what_was_encoded_is_read_back(calls: list[dict[str, Any]], at: list[int], commit: int, before: str) -> None:
    encoded = [encode_call(MARKERS, NONCE, TOOLBOX, "anything", json.dumps(call)) for call in calls]
    read = reading(ReadingOptions(commit_characters=commit), toolbox=TOOLBOX)
    reply = Reply(pieces(before + "\n".join(encoded), at), read)
    assert reply.calls == [("anything", call) for call in calls]
    assert reply.text == before.removesuffix("\n")
    assert not reply.report.dropped and not reply.report.invalid


@given(transcripts, cuts, options)
def test_where_a_reply_is_cut_decides_nothing(text: str, at: list[int], options: ReadingOptions) -> None:
    whole = Reply([text], reading(options))
    for cut in (pieces(text, at), list(text)):
        reply = Reply(cut, reading(options))
        assert reply.events == whole.events
        assert reply.report == whole.report
    noticed = whole.report
    if not (noticed.calls or noticed.invalid or noticed.dropped or noticed.result_invented or options.withhold_text):
        assert whole.text == text


BASH = "[[call 7f3a Bash]]\n[[arg 7f3a command]]\n"
ENDS = (
    *("[[end 7f3a]]", "\n[[end 7f3a]]", "\n[[end 7f3", "[[end]]", "\n[[end]]", "\n[[end 7f3b]]", f"\n{BASH}", BASH),
    *("[[arg 7f3a timeout]]", "\n[[arg 7f3a timeout]]\n5", "\n[[arg 7f3a timeout]]\nnull", "[[1]]", "[", "[["),
    *("ls", "x", "\n", "\n", "\r\n", "\r", " ", "   ", "\t", "*", "**", "_", "\n[[result 7f3a #1 Bash]]\n"),
)


@given(st.lists(st.sampled_from(ENDS), max_size=9).map("".join), cuts, st.booleans())
def test_where_a_call_that_streams_ends_does_not_depend_on_cuts(text: str, at: list[int], has_cr: bool) -> None:
    text = BASH + text
    if has_cr:
        text = text.replace("]]\n", "]]\r\n")
    whole = Reply([text], reading())
    for cut in (pieces(text, at), list(text)):
        reply = Reply(cut, reading())
        assert (reply.events, reply.report.calls, reply.report.cut) == (
            whole.events,
            whole.report.calls,
            whole.report.cut,
        )
        assert (reply.report.repairs, reply.report.dropped) == (whole.report.repairs, whole.report.dropped)
    held = Reply([text], reading(ReadingOptions(strict=frozenset({"Bash"}))))
    if not whole.report.cut and not whole.report.invalid:
        assert whole.calls == held.calls


@given(transcripts)
def test_a_call_that_streams_says_what_it_says_if_it_is_held(text: str) -> None:
    """Or it is cut: a call that was held could be read once more, leniently, when it was over."""
    streamed = Reply([text], reading(ReadingOptions(stop_after_first=True)))
    held = Reply([text], reading(ReadingOptions(stop_after_first=True, strict=frozenset(tool.name for tool in TOOLS))))
    if streamed.calls and not streamed.report.invalid:
        assert streamed.calls == held.calls


@given(st.lists(st.sampled_from([piece for piece in PIECES if piece.isalpha() or piece.isspace()])).map("".join), cuts)
def test_text_without_calls_passes_unchanged(text: str, at: list[int]) -> None:
    assert Reply(pieces(text, at), reading()).text == text
