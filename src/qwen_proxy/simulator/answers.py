"""Composes the simulator's own answers out of frames: thinking, search, pictures, text and how it ends.

A `Shape` says what is wanted; `compose` makes the `Reply`. The forms are those of upstream protocol §4.4 to §5.1.
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Literal

import qwen_proxy.simulator.frames as frames
from qwen_proxy.simulator.replies import EVENT_STREAM, Chunking, Encoding, Pause, Reply, Step

TITLES = ("Reading the question", "Planning the answer")
THOUGHTS = (
    "The user wrote something to a simulator. It should be read with care.",
    "An echo is honest. The answer will repeat what was said, and say that nobody thought about it.",
)
THINK_TEXT = "The user wrote something to a simulator. An echo is honest, so the answer will be one."
IMAGE_URL = "https://cdn.qwenlm.ai/output/simulated/t2i/$$response_id$$/1.png?key=eyJzaW11bGF0ZWQiOnRydWV9"
WORD = re.compile(r"\s*\S+|\s+$")

Thinking = Literal["grow", "append", "finished", "detail"]
Search = Literal["one", "two", "both"]
Candidates = Literal["zero-first", "one-first", "zero-silent"]


def tokens(text: str) -> int:
    """A plausible count: a token for four bytes of UTF-8, rounded up."""
    return (len(text.encode()) + 3) // 4


def hidden_prompt_tokens(model: str) -> int:
    """Size of the hidden system prompt in `input_tokens`: 800 to 1,399, fixed for a model (§4.6)."""
    return 800 + zlib.crc32(model.encode()) % 600


def no_steps() -> list[Step]:
    return []


@dataclass(slots=True)
class Shape:
    """What an answer is to be like.

    asked: what a search looks for.
    phases: false when the request lacked `output_schema: "phase"`; deltas then carry only role and content (§4.2).
    phase: of the answer's deltas; None leaves it out. ends: steps put after `ends_after` deltas of the answer.
    piece_characters: deltas of the answer have so many characters, else they are words.
    thought: stands in place of the usual reasoning. native_calls: names and arguments, as frames after the text.
    refused_tools: calls that the site took for its own, and tells that it has no such tools.
    """

    text: str
    asked: str = ""
    thinking: Thinking | None = None
    search: Search | None = None
    image: str | None = None
    phases: bool = True
    phase: str | None = "answer"
    input_tokens: int = 827
    pause_seconds: float = 0.0
    candidates: Candidates | None = None
    quirks: bool = False
    drift: bool = False
    keep_alives: int = 0
    answers: bool = True
    piece_characters: int | None = None
    thought: str | None = None
    native_calls: tuple[tuple[str, Mapping[str, object]], ...] = ()
    refused_tools: tuple[str, ...] = ()
    silent: bool = False
    ends: list[Step] = field(default_factory=no_steps)
    ends_after: int = 0
    delay_seconds: float = 0.0
    status: int = 200
    chunking: Chunking = "frame"
    newline: Literal["\n", "\r\n"] = "\n"
    trailing_blank_line: bool = True
    done: bool = False
    encoding: Encoding = "identity"


def words(text: str) -> list[str]:
    """The text in pieces that join to it again: each word with the space before it."""
    return WORD.findall(text)


def compose(shape: Shape) -> Reply:
    """The stream for a shape."""
    steps: list[Step] = []
    if shape.delay_seconds:
        steps.append(Pause(shape.delay_seconds))
    if not shape.silent:
        _fill(steps, shape)
    return Reply(
        steps,
        status=shape.status,
        headers={"x-simulated-drift": "1"} if shape.drift else {},
        content_type=EVENT_STREAM,
        chunking=shape.chunking,
        newline=shape.newline,
        trailing_blank_line=shape.trailing_blank_line,
        done=shape.done,
        encoding=shape.encoding,
    )


def _fill(steps: list[Step], shape: Shape) -> None:
    steps.append(frames.created("0"))
    if shape.candidates is not None:
        steps.append(frames.created("1", response_id=frames.OTHER_RESPONSE_ID))
    steps.extend([frames.keep_alive()] * shape.keep_alives)
    if shape.drift:
        steps.append(frames.unknown_event())
    spent = _think(steps, shape)
    _search(steps, shape)
    if shape.image is not None and _picture(steps, shape):
        return
    if shape.quirks:
        steps += [frames.null_content(), frames.null_extra(), frames.null_extra(name="web_search")]
        steps += [frames.empty_choices(), frames.comment()]
    if shape.answers:
        _answer(steps, shape, spent)
    else:
        steps.extend(shape.ends)


def _add(steps: list[Step], shape: Shape, frame: Step) -> None:
    steps.append(frame)
    if shape.pause_seconds:
        steps.append(Pause(shape.pause_seconds))


def _think(steps: list[Step], shape: Shape) -> int:
    """Reasoning in the wanted style (§4.5); returns the tokens it took."""
    if shape.thinking is None:
        return 0
    if not shape.phases:
        # Without phases a reader cannot tell reasoning from answer; the summary's content is empty anyway (§4.2).
        return tokens(THINK_TEXT)
    if shape.thinking == "detail":
        spent = 0
        for piece in words(shape.thought or THINK_TEXT):
            spent += tokens(piece)
            _add(steps, shape, frames.think(piece, used=frames.usage(shape.input_tokens, spent, spent)))
        steps.append(frames.delta({"role": "assistant", "content": "", "phase": "think", "status": "finished"}))
        return spent
    spent = 0
    if shape.thought is not None:
        snapshots = list(_one_thought(shape.thought))
    else:
        snapshots = list(growing()) if shape.thinking == "grow" else list(appended())
    for titles, thoughts in snapshots:
        spent = tokens("".join(thoughts))
        used = frames.usage(shape.input_tokens, spent, spent)
        status = "finished" if shape.thinking == "finished" else "typing"
        _add(steps, shape, frames.thinking_summary(titles, thoughts, status=status, used=used))
    steps.append(frames.thinking_finished())
    return spent


def growing() -> Iterator[tuple[list[str], list[str]]]:
    """Snapshots whose last thought grows in place by a sentence (§4.5)."""
    for index, thought in enumerate(THOUGHTS):
        sentences = re.findall(r"[^.]+\.", thought)
        for count in range(1, len(sentences) + 1):
            yield list(TITLES[: index + 1]), [*THOUGHTS[:index], "".join(sentences[:count])]


def appended() -> Iterator[tuple[list[str], list[str]]]:
    """Snapshots that gain whole elements (§4.5)."""
    for count in range(1, len(THOUGHTS) + 1):
        yield list(TITLES[:count]), list(THOUGHTS[:count])


def _one_thought(thought: str) -> Iterator[tuple[list[str], list[str]]]:
    """Snapshots of one thought that grows by lines (§4.5)."""
    lines = thought.splitlines(keepends=True)
    for count in range(1, len(lines) + 1):
        yield [TITLES[0]], ["".join(lines[:count])]


def _search(steps: list[Step], shape: Shape) -> None:
    """Queries in increments, then the results on the wanted carrier (§5.1)."""
    if shape.search is None or not shape.phases:
        return
    query = json.dumps({"queries": [" ".join(shape.asked.split()[:8])]}, ensure_ascii=False)
    middle = len(query) // 2
    for piece in (query[:middle], query[middle:]):
        _add(steps, shape, frames.search_queries(piece))
    if shape.search in ("one", "both"):
        _add(steps, shape, frames.search_info(frames.RESULTS[:1], status="typing"))
        _add(steps, shape, frames.search_info(frames.RESULTS))
    if shape.search in ("two", "both"):
        _add(steps, shape, frames.search_docs(frames.RESULTS))


def _picture(steps: list[Step], shape: Shape) -> bool:
    """A picture: the whole reply of an image mode (True), or one amid an ordinary chat (§6.1)."""
    if shape.image == "chat":
        _add(steps, shape, frames.image_in_chat(IMAGE_URL))
        return False
    steps.append(frames.keep_alive())
    _add(steps, shape, frames.image(IMAGE_URL))
    steps.append(frames.finished("image_gen"))
    return True


def _answer(steps: list[Step], shape: Shape, spent: int) -> None:
    """The text by words with cumulative usage, an empty delta, and the end (§4.4 (4))."""
    pieces = words(shape.text) if shape.piece_characters is None else _cut(shape.text, shape.piece_characters)
    if shape.search is not None and pieces:
        pieces += [" [[1]]", "[[2]]"]
    deltas = _deltas(shape, pieces, spent)
    if shape.ends:
        for frame, _ in islice(deltas, shape.ends_after):
            _add(steps, shape, frame)
        steps.extend(shape.ends)
        return
    total = spent
    for frame, piece in deltas:
        total += tokens(piece)
        _add(steps, shape, frame)
    _tools(steps, shape)
    last = frames.usage(shape.input_tokens, total, spent)
    if not shape.phases:
        steps.append(_bare("", last))
        return
    silent_zero = shape.candidates == "zero-silent"
    speaker = frames.OTHER_RESPONSE_ID if silent_zero else frames.RESPONSE_ID
    steps.append(frames.answer("", phase=shape.phase, used=last, response_id=speaker))
    if shape.candidates is not None and not silent_zero:
        steps.append(frames.finished(response_id=frames.OTHER_RESPONSE_ID))
    steps.append(frames.finished(response_id=speaker))


def _cut(text: str, characters: int) -> list[str]:
    return [text[start : start + characters] for start in range(0, len(text), characters)]


def _tools(steps: list[Step], shape: Shape) -> None:
    """Native calls as growing snapshots, the last one twice; calls the site took for its own (§4.4, delta fields)."""
    for number, (name, arguments) in enumerate(shape.native_calls, start=1):
        whole = json.dumps(arguments, ensure_ascii=False)
        for end in (0, len(whole) // 2, len(whole), len(whole)):
            _add(steps, shape, frames.native_call(name, whole[:end], function_id=f"call_simulated_{number}"))
    for name in shape.refused_tools:
        _add(steps, shape, frames.native_call(name, ""))
        _add(steps, shape, frames.no_such_tool(name))
    if shape.refused_tools:
        _add(steps, shape, frames.answer("It seems that I have no such tool here.", phase=shape.phase))


def _deltas(shape: Shape, pieces: Sequence[str], spent: int) -> Iterator[tuple[str, str]]:
    """Each delta of the answer with the text it adds for the right candidate."""
    if shape.candidates is not None:
        yield from _interleaved(shape, pieces, spent)
        return
    total = spent
    for piece in pieces:
        total += tokens(piece)
        used = frames.usage(shape.input_tokens, total, spent)
        if not shape.phases:
            yield _bare(piece, used), piece
        elif shape.drift:
            yield frames.drifted(piece), piece
        else:
            yield frames.answer(piece, phase=shape.phase, used=used), piece


def _bare(piece: str, used: str) -> str:
    """A delta as it comes without `output_schema`: only role and content (§4.2)."""
    return frames.delta({"role": "assistant", "content": piece}, used=used)


def _interleaved(shape: Shape, pieces: Sequence[str], spent: int) -> Iterator[tuple[str, str]]:
    """Deltas of two candidates, the second saying the same in capitals; index 0 may stay silent (§4.4 (1))."""
    total = spent
    for piece in pieces:
        total += tokens(piece)
        used = frames.usage(shape.input_tokens, total, spent)
        zero = frames.answer(piece, used=used), piece
        other = frames.answer(piece.upper(), used=used, response_id=frames.OTHER_RESPONSE_ID), ""
        if shape.candidates == "zero-silent":
            yield other[0], piece
        else:
            yield from (zero, other) if shape.candidates == "zero-first" else (other, zero)


def interleave(zero: Sequence[str], other: Sequence[str], *, other_first: bool = False) -> list[Step]:
    """A whole stream of two candidates that take turns, for scripted replies; an empty one stays silent (§4.4 (1))."""
    steps: list[Step] = [frames.created("0"), frames.created("1", response_id=frames.OTHER_RESPONSE_ID)]
    for left, right in zip_longest(zero, other):
        turn = [(left, frames.RESPONSE_ID), (right, frames.OTHER_RESPONSE_ID)]
        for text, response_id in reversed(turn) if other_first else turn:
            if text is not None:
                steps.append(frames.answer(text, response_id=response_id))
    if zero:
        steps.append(frames.finished())
    if other:
        steps.append(frames.finished(response_id=frames.OTHER_RESPONSE_ID))
    return steps
