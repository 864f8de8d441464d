"""The reply stream of chat.qwen.ai: bytes in, our events out. Pure. Source: upstream protocol §4.4 to §4.7, §5.1, §6.1.

| phase                              | `content` becomes                        | `finished` ends |
|------------------------------------|------------------------------------------|-----------------|
| `answer`, missing                  | text                                     | the reply       |
| `image_gen`, `video_gen`           | a picture or clip, if its host is theirs | the reply       |
| `think`                            | reasoning                                | the phase       |
| `thinking_summary`                 | reasoning, from snapshots in `extra`     | the phase       |
| `KeepAlive`                        | nothing                                  | the phase       |
| tools, research, unknown (counted) | reasoning, never answer text             | the phase       |

A frame of role `function` is the platform talking to itself: only its search results and pictures are taken; of its
own calls, what it searches for. Where the
prompt taught tools, calls of them that come as frames (native_calls.py) are handed on, and one that the platform took
for its own, so that its arguments are lost, fails the reply.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

import msgspec
from msgspec import Raw

from qwen_proxy.chat.events import (
    Batch,
    ChatEvent,
    Finish,
    FinishReason,
    MediaKind,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    Source,
    SourcesFound,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    Usage,
)
from qwen_proxy.ground.errors import ProxyError, ReplyCut, ReplyEmpty, ReplyUnfit, UpstreamProtocolError
from qwen_proxy.ground.sse import SseDecoder
from qwen_proxy.upstreams.qwen_web.candidates import Candidates
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.errors import classify_body, classify_value
from qwen_proxy.upstreams.qwen_web.extras import image_urls, is_media_url, read_extra, sources, thoughts
from qwen_proxy.upstreams.qwen_web.native_calls import REFUSAL, NativeCall, NativeCalls
from qwen_proxy.upstreams.qwen_web.queries import Queries
from qwen_proxy.upstreams.qwen_web.wire import (
    CHOICE_KEYS,
    DELTA_KEYS,
    FRAME_KEYS,
    NOTHING,
    NULL,
    STATUSES,
    ChoiceBody,
    CreatedBody,
    DeltaBody,
    FrameBody,
    decode_frame,
    decode_token,
    items,
    loads,
    members,
    salvage,
    text,
    whole,
)

INSPECT_EVERY: Final = 64  # frames of a reply; besides the first ones of each phase and status
DONE: Final = b"[DONE]"
HTTP_OK: Final = 200


class Phase(Enum):
    TEXT = "text"
    REASONING = "reasoning"
    SUMMARY = "summary"
    IMAGE = "image"
    VIDEO = "video"
    SILENT = "silent"


PHASES: Final[dict[str | None, Phase]] = {
    None: Phase.TEXT,
    "": Phase.TEXT,
    "answer": Phase.TEXT,
    "think": Phase.REASONING,
    "thinking_summary": Phase.SUMMARY,
    "image_gen": Phase.IMAGE,
    "video_gen": Phase.VIDEO,
    "KeepAlive": Phase.SILENT,
    "web_search": Phase.REASONING,
    "image_gen_tool": Phase.REASONING,
    "code_interpreter": Phase.REASONING,
    "web_extractor": Phase.REASONING,
    "ResearchNotice": Phase.REASONING,
    "ResearchPlanning": Phase.REASONING,
    "WebResearch": Phase.REASONING,
}
ENDING: Final = (Phase.TEXT, Phase.IMAGE, Phase.VIDEO)
FINISH_REASONS: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class ReplyCodec:
    """Decodes one reply. `feed` each chunk, `finish` at a clean end of the body; both give a batch.

    A failure raises ProxyError; one that came behind content of the same chunk stands in `failure` first, and the
    next call raises it: ask for it after each batch. `finished` says that the reply's end mark was seen; what
    comes behind it is ignored.

    `model` is the upstream id that was asked for; `tools` are the names that the prompt taught. An answer with a
    failing status is not for this (§0.4).
    """

    def __init__(self, drift: Drift, *, model: str = "", tools: frozenset[str] = frozenset()) -> None:
        self.finished = False
        self.failure: ProxyError | None = None
        self._drift = drift
        self._model = model
        self._sse = SseDecoder()
        self._candidates = Candidates()
        self._calls = NativeCalls(tools)
        self._queries = Queries()
        self._batch: Batch = []
        self._pieces: list[str] = []
        self._kind: type[TextDelta | ReasoningDelta] = TextDelta
        self._started = False
        self._has_answered = False  # with text or media
        self._is_answering = False  # the last thing said was text
        self._has_reasoned = False
        self._mutes_reasoning = False
        self._thoughts: list[str] = []
        self._thought_index = -1
        self._usage: Raw = NOTHING
        self._urls: set[str] = set()
        self._frames = 0

    def feed(self, chunk: bytes) -> Batch:
        return self._deliver(self._take_chunk, chunk)

    def finish(self, *, is_clean: bool = True) -> Batch:
        """The body is over; `is_clean` is False when the connection broke."""
        self._ended_cleanly = is_clean
        return self._deliver(self._take_end, b"")

    def _deliver(self, take: Callable[[bytes], None], chunk: bytes) -> Batch:
        if self.failure is not None:
            raise self.failure
        try:
            take(chunk)
        except ProxyError as error:
            self._flush()
            if not self._batch:
                raise
            self.failure = error
        self._flush()
        batch, self._batch = self._batch, []
        return batch

    def _take_chunk(self, chunk: bytes) -> None:
        for payload in self._sse.feed(chunk):
            self._take(payload)

    def _take_end(self, _: bytes) -> None:
        try:
            for payload in self._sse.finish():
                self._take(payload)
        except UpstreamProtocolError as error:  # the last event is not whole
            raise ReplyCut from error
        if self.finished:
            return
        if stray := self._sse.stray:
            self._drift.seen("ending", "bytes that are no event")
            if (error := classify_body(HTTP_OK, stray, self._model, self._drift)) is not None:
                raise error
        while self._switch():
            if self.finished:
                return
        if self._ended_cleanly and self._has_answered:
            self._drift.seen("ending", "an answer without an end mark")
        raise ReplyCut

    # --- frames

    def _take(self, payload: bytes) -> None:
        if self.finished:
            return
        if self._is_answering and self._takes_token(payload):
            return
        try:
            frame = decode_frame(payload)
        except ValueError as error:
            salvaged = self._salvage(payload, isinstance(error, msgspec.ValidationError))
            if salvaged is None:
                return
            frame = salvaged
        if frame.created is not None:
            self._take_created(frame.created)
        if frame.response_id != self._candidates.chosen and not self._admits(frame, payload):
            return
        if frame.usage is not NOTHING and frame.usage != NULL:
            self._usage = frame.usage
        if frame.error is not NOTHING or not frame.choices:
            self._take_event(frame, payload)
        if frame.choices:
            self._frames += 1
            self._take_choice(frame.choices[0], payload)

    def _takes_token(self, payload: bytes) -> bool:
        """The frame that comes once a token in the middle of an answer: text and counts, and nothing else at all."""
        try:
            frame = decode_token(payload)
        except ValueError:
            return False
        if frame.response_id != self._candidates.chosen:
            return False
        self._pieces.append(frame.choices[0].delta.content)
        if frame.usage is not NOTHING and frame.usage != NULL:
            self._usage = frame.usage
        return True

    def _admits(self, frame: FrameBody, payload: bytes) -> bool:
        """Whether the frame is the reply's; else it is held. An error of an unannounced id concerns the request."""
        response_id = frame.response_id
        if response_id is None or self._candidates.admits(response_id):
            return True
        if frame.error is not NOTHING and not self._candidates.knows(response_id):
            return True
        self._set_aside(response_id, payload)
        return False

    def _salvage(self, payload: bytes, is_json: bool) -> FrameBody | None:
        """A payload that does not fit the typed shape; None when there is nothing in it."""
        bare = payload.strip()
        if bare in (b"", DONE):
            if bare:
                self._end(FinishReason.STOP)
            return None
        try:
            value = loads(payload)
        except ValueError as error:
            page = classify_body(HTTP_OK, payload, self._model, self._drift)
            raise page or UpstreamProtocolError("an event that is not JSON") from error
        if is_json:
            self._drift.seen("shape", "a frame with a value of another type")
        return salvage(value)

    def _take_created(self, created: CreatedBody) -> None:
        if created.response_id is not None:
            for payload in self._candidates.create(created.response_id, created.response_index):
                self._take(payload)

    def _set_aside(self, response_id: str, payload: bytes) -> None:
        if self._has_answered:
            self._candidates.release()
            return
        self._candidates.hold(response_id, payload)
        if self._candidates.is_full:
            if self._has_reasoned:
                self._candidates.release()
            else:
                self._switch()

    def _switch(self) -> bool:
        """Go over to the next candidate if this one has not answered, and read what was held of it."""
        self._flush()
        held = None if self._has_answered else self._candidates.switch()
        if held is None:
            return False
        self._mutes_reasoning = self._has_reasoned
        self._thoughts.clear()
        for payload in held:
            self._take(payload)
        return True

    def _take_event(self, frame: FrameBody, payload: bytes) -> None:
        tells_failure = frame.error is not NOTHING or frame.success is not None or frame.ret is not NOTHING
        if frame.created is not None and not tells_failure and not self._drift.is_worth_a_look("response.created"):
            return
        value = members(loads(payload))
        self._inspect(value)
        if (error := classify_value(HTTP_OK, value, self._model, self._drift)) is not None:
            raise error
        if frame.completed is not NOTHING:
            response_id = text(members(value.get("response.completed")).get("response_id")) or None
            if self._candidates.admits(response_id):
                self._end(FinishReason.STOP)

    def _take_choice(self, choice: ChoiceBody, payload: bytes) -> None:
        delta = choice.delta
        if delta is not None:
            phase = PHASES.get(delta.phase, Phase.REASONING)
            self._sample(delta, payload)
            self._take_delta(delta, phase)
            if delta.status == "finished" and phase in ENDING and delta.role != "function":
                self._end(FinishReason.STOP)
                return
        if choice.finish_reason:
            self._end(self._finish_reason(choice.finish_reason))

    def _finish_reason(self, said: str) -> FinishReason:
        if said not in FINISH_REASONS:
            self._drift.seen("finish_reason", said)
        return FINISH_REASONS.get(said, FinishReason.STOP)

    # --- deltas

    def _take_delta(self, delta: DeltaBody, phase: Phase) -> None:
        content = delta.content
        if delta.extra is not NOTHING:
            extra = read_extra(delta.extra)
            snapshot = thoughts(extra)
            if snapshot is not None:
                self._take_thoughts(snapshot)
                content = None if phase is Phase.SUMMARY else content
            self._take_sources(extra)
            for url in image_urls(extra):
                self._take_media(MediaKind.IMAGE, url)
        if delta.function_call is not NOTHING:
            self._take_call(delta, phase)
        if delta.role == "function":
            if phase is Phase.TEXT and self._calls.names and content and REFUSAL in content:
                self._take_refusal()
            return
        if delta.reasoning_content:
            self._say(ReasoningDelta, delta.reasoning_content)
        if not content or phase is Phase.SILENT:
            return
        if phase is Phase.TEXT:
            self._say(TextDelta, content)
        elif phase is Phase.IMAGE or phase is Phase.VIDEO:
            self._take_media(MediaKind.IMAGE if phase is Phase.IMAGE else MediaKind.VIDEO, content)
        else:
            self._say(ReasoningDelta, content)

    def _take_thoughts(self, snapshot: list[str]) -> None:
        """What is new in a snapshot, by element, whether elements grow or are added (§4.5); never anything again."""
        self._thoughts += [""] * (len(snapshot) - len(self._thoughts))
        for index, thought in enumerate(snapshot):
            known = self._thoughts[index]
            if len(thought) > len(known) and thought.startswith(known):
                if self._thought_index not in (-1, index):
                    self._say(ReasoningDelta, "\n\n")
                self._thought_index = index
                self._thoughts[index] = thought
                self._say(ReasoningDelta, thought[len(known) :])

    def _take_sources(self, extra: dict[str, object]) -> None:
        found: list[Source] = []
        for source in sources(extra):
            if source.url not in self._urls:
                self._urls.add(source.url)
                found.append(source)
        if found:
            self._emit(SourcesFound(tuple(found)))

    def _take_media(self, kind: MediaKind, url: str) -> None:
        url = url.strip()
        if not url or url in self._urls:
            return
        if not is_media_url(url):
            self._drift.seen("media_url", "refused")
            return
        self._urls.add(url)
        self._has_answered = True
        self._emit(MediaOutput(kind, url))

    def _take_call(self, delta: DeltaBody, phase: Phase) -> None:
        """The model's call: of a tool that was taught, or of the platform's own, which is of no use to a client."""
        call = members(loads(bytes(delta.function_call)))
        name = text(call.get("name")) or self._calls.open_name
        if phase is Phase.TEXT and name in self._calls.names:
            self._is_answering = False
            self._hand_on(self._calls.take(delta.function_id or "", name, call.get("arguments")))
        elif (name or delta.phase) == "web_search":
            if queries := self._queries.take(call.get("arguments")):
                self._emit(SourcesFound((), queries))
        elif name:
            self._drift.seen("function_call", name)

    def _take_refusal(self) -> None:
        """The platform took a call for one of its own tools. Its arguments may have come before; else they are lost."""
        call = self._calls.open
        if call is None or not call.arguments:
            raise ReplyUnfit("intercepted", "the site took the model's call of a tool for its own")
        self._hand_on(self._calls.close())

    def _hand_on(self, call: NativeCall | None) -> None:
        if call is not None:
            self._has_answered = True
            self._emit(ToolCallStart(call.call_id, call.name))
            self._emit(ToolArgumentsDelta(call.arguments or "{}"))

    def _say(self, kind: type[TextDelta | ReasoningDelta], said: str) -> None:
        if kind is TextDelta:
            self._has_answered = True
        elif self._mutes_reasoning:
            return
        else:
            self._has_reasoned = True
        if kind is not self._kind:
            self._flush()
            self._kind = kind
        if self._calls.open is not None:
            self._hand_on(self._calls.close())
        self._is_answering = kind is TextDelta
        self._pieces.append(said)

    # --- events

    def _flush(self) -> None:
        if self._pieces:
            said = "".join(self._pieces)
            self._pieces.clear()
            self._emit(self._kind(said))

    def _emit(self, event: ChatEvent) -> None:
        self._flush()
        if not self._started:
            self._started = True
            self._batch.append(ReplyStart(self._candidates.chosen or ""))
        self._batch.append(event)

    def _end(self, reason: FinishReason) -> None:
        """The end mark: of the reply, or of a silent candidate while another has something to say."""
        self._hand_on(self._calls.close())
        if self._switch():
            return
        self.finished = True
        if not self._has_answered:
            raise ReplyEmpty("thinking_only" if self._has_reasoned else "nothing")
        if (usage := read_usage(self._usage)) is not None:
            self._emit(usage)
        self._emit(Finish(reason))

    # --- drift

    def _sample(self, delta: DeltaBody, payload: bytes) -> None:
        key = (delta.phase, delta.status)
        if not self._frames % INSPECT_EVERY or self._drift.is_worth_a_look(key):
            self._inspect(members(loads(payload)))

    def _inspect(self, frame: dict[str, object]) -> None:
        self._note("frame_key", frame.keys() - FRAME_KEYS)
        for value in items(frame.get("choices")):
            choice = members(value)
            delta = members(choice.get("delta"))
            self._note("choice_key", choice.keys() - CHOICE_KEYS)
            self._note("delta_key", delta.keys() - DELTA_KEYS)
            phase, status = delta.get("phase"), delta.get("status")
            if isinstance(phase, str) and phase not in PHASES:
                self._drift.seen("phase", phase)
            if isinstance(status, str) and status not in STATUSES:
                self._drift.seen("status", status)

    def _note(self, kind: str, names: set[str]) -> None:
        for name in sorted(names):
            self._drift.seen(kind, name)


def read_usage(raw: Raw) -> Usage | None:
    """The last `usage` of the stream (§4.6), under its captured names; None when it counts no tokens."""
    if raw is NOTHING:
        return None
    counts = members(loads(bytes(raw)))
    prompt, completion = whole(counts.get("input_tokens")), whole(counts.get("output_tokens"))
    if prompt is None or completion is None or not prompt + completion:
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        reasoning_tokens=whole(members(counts.get("output_tokens_details")).get("reasoning_tokens")) or 0,
        cached_tokens=whole(members(counts.get("prompt_tokens_details")).get("cached_tokens")) or 0,
    )
