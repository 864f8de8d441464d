"""The frames of a completion stream, in the forms of the captures (upstream protocol §4.4, 4.5, 4.7 b, 5.1, 6.1).

Each function returns the JSON text of one frame (`Reply` adds `data: ` and the line ends) or raw bytes where the form
is not a frame. Spaces stand where the captures have them. Names such as `$$response_id$$` are filled in when sent.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwen_proxy.simulator.replies import captcha_payload, failure_payload

CHAT_ID = "$$chat_id$$"
RESPONSE_ID = "$$response_id$$"
OTHER_RESPONSE_ID = "$$other_response_id$$"
PARENT_ID = "$$parent_id$$"
TIMESTAMP = "$$timestamp$$"

ENCODER = json.JSONEncoder(ensure_ascii=False)


def dumps(value: object) -> str:
    """JSON with a space after each separator, and characters beyond ASCII as they are."""
    return ENCODER.encode(value)


def usage(input_tokens: int, output_tokens: int, reasoning_tokens: int = 0) -> str:
    """Cumulative counts under the captured names; text_tokens repeats output_tokens as there (§4.4 (3), §4.6)."""
    return (
        f'{{"input_tokens": {input_tokens}, "output_tokens": {output_tokens}, "characters": 0, '
        f'"total_tokens": {input_tokens + output_tokens}, "input_tokens_details": {{"text_tokens": {input_tokens}}}, '
        f'"output_tokens_details": {{"reasoning_tokens": {reasoning_tokens}, "text_tokens": {output_tokens}}}, '
        f'"prompt_tokens_details": {{"cached_tokens": 0}}}}'
    )


def created(index: str | None = "0", *, response_id: str = RESPONSE_ID) -> str:
    """First frame of a candidate; no `response_index` with None, as in March 2026 (§4.4 (1))."""
    tail = "" if index is None else f', "response_index": "{index}"'
    ids = f'"chat_id": "{CHAT_ID}", "parent_id": "{PARENT_ID}", "response_id":"{response_id}"'
    return f'{{"response.created":{{{ids}{tail}}}}}'


def keep_alive(*, response_id: str = RESPONSE_ID) -> str:
    """Sent every 10 s during long work (§4.4 (2))."""
    ids = f'"chat_id": "{CHAT_ID}", "response_id": "{response_id}"'
    return f'{{"response.info": {{"action": "keep_alive", {ids}, "timestamp": {TIMESTAMP}}}}}'


def delta(
    fields: Mapping[str, object],
    *,
    used: str | None = None,
    response_id: str | None = RESPONSE_ID,
    timestamp: bool = True,
) -> str:
    """Any frame with one choice (§4.4). `response_id=None` leaves the id out, as on older models.

    used is the text of `usage`.
    """
    text = f'{{"choices": [{{"delta": {dumps(dict(fields))}}}]'
    if response_id is not None:
        text += f', "response_id": "{response_id}"'
    if used is not None:
        text += f', "usage": {used}'
    return text + (f', "timestamp": {TIMESTAMP}}}' if timestamp else "}")


def answer(
    content: str, *, phase: str | None = "answer", used: str | None = None, response_id: str | None = RESPONSE_ID
) -> str:
    """An increment of the answer (§4.4 (4)). Another phase, or None for no phase at all (§4.4, delta fields)."""
    fields: dict[str, object] = {"role": "assistant", "content": content}
    if phase is not None:
        fields["phase"] = phase
    return delta(fields | {"status": "typing"}, used=used, response_id=response_id)


def finished(phase: str = "answer", *, response_id: str | None = RESPONSE_ID) -> str:
    """End of the reply (phase `answer` or `image_gen`) or of another phase (§4.4 (4)); a space follows."""
    fields = {"content": "", "role": "assistant", "status": "finished", "phase": phase}
    return delta(fields, response_id=response_id, timestamp=False) + " "


def thinking_summary(
    titles: Sequence[str],
    thoughts: Sequence[str],
    *,
    status: str = "typing",
    used: str | None = None,
    response_id: str | None = RESPONSE_ID,
) -> str:
    """A snapshot of all reasoning so far (§4.4 (3), §4.5). Status `finished` makes it a finished-summary event."""
    extra = {"summary_title": {"content": list(titles)}, "summary_thought": {"content": list(thoughts)}}
    fields = {"role": "assistant", "content": "", "phase": "thinking_summary", "extra": extra, "status": status}
    return delta(fields, used=used, response_id=response_id)


def thinking_finished(*, response_id: str | None = RESPONSE_ID) -> str:
    """End of the reasoning in its summary form: no `extra` (§4.4 (3))."""
    fields = {"role": "assistant", "content": "", "phase": "thinking_summary", "status": "finished"}
    return delta(fields, response_id=response_id)


def think(content: str, *, used: str | None = None, response_id: str | None = RESPONSE_ID) -> str:
    """An increment of reasoning in the older form (§4.5)."""
    return answer(content, phase="think", used=used, response_id=response_id)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One site found; only url and title are always present (§5.1)."""

    url: str
    title: str | None
    snippet: str | None = None
    hostname: str | None = None
    hostlogo: str | None = None
    date: str | None = None

    def fields(self) -> dict[str, str]:
        """What is known, in the order of the page."""
        names = ("url", "title", "snippet", "hostname", "hostlogo", "date")
        found: dict[str, str | None] = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


RESULTS = (
    SearchResult(
        "https://example.com/a",
        "First result",
        "Where the first sentence stands.",
        "example.com",
        "https://example.com/favicon.ico",
        " (2026-06-09)",
    ),
    SearchResult("https://example.org/b", "Second result"),
)


def search_queries(arguments: str) -> str:
    """A piece of the JSON `{"queries": [...]}` the model searches with (§5.1)."""
    call = {"name": "web_search", "arguments": arguments}
    fields = {"role": "assistant", "content": "", "phase": "web_search", "function_call": call, "status": "typing"}
    return delta(fields, timestamp=False)


def search_info(results: Sequence[SearchResult], *, status: str = "finished") -> str:
    """Carrier one: `extra.web_search_info`, the whole list so far (§5.1)."""
    extra = {"web_search_info": [result.fields() for result in results]}
    fields = {"role": "function", "content": "", "name": "web_search", "phase": "web_search", "extra": extra}
    return delta(fields | {"status": status}, timestamp=False)


def search_docs(results: Sequence[SearchResult]) -> str:
    """Carrier two: `extra.tool_result.docs` (§5.1)."""
    extra = {"tool_result": {"docs": [result.fields() for result in results]}}
    fields = {"role": "function", "content": "", "phase": "web_search", "extra": extra, "status": "finished"}
    return delta(fields, timestamp=False)


def image_in_chat(*urls: str) -> str:
    """A picture the model made in an ordinary chat (§6.1, `image_gen_tool`)."""
    extra = {"image_list": [{"image": url} for url in urls]}
    fields = {"role": "function", "content": "", "phase": "image_gen_tool", "extra": extra, "status": "finished"}
    return delta(fields)


def image(url: str, *, height: int = 1536, width: int = 2688) -> str:
    """One picture of a text-to-image reply (§6.1)."""
    size = f'{{"input_tokens": 0, "output_tokens": 0, "characters": 0, "width": {width}, '
    size += f'"image_count": 1, "height": {height}}}'
    fields: dict[str, object] = {"role": "assistant", "content": url, "phase": "image_gen"}
    return delta(fields | {"extra": {"output_image_hw": [[height, width]]}, "status": "typing"}, used=size)


def function_call(name: str, arguments: str | Mapping[str, object], *, function_id: str = "call_simulated_1") -> str:
    """A native tool call; arguments as a string increment or an object (§4.4, delta fields)."""
    value = arguments if isinstance(arguments, str) else dict(arguments)
    call = {"name": name, "arguments": value}
    fields = {"role": "assistant", "content": "", "phase": name, "function_id": function_id, "function_call": call}
    return delta(fields | {"status": "typing"})


def native_call(name: str, arguments: str, *, function_id: str = "call_simulated_1") -> str:
    """A call in the answer's own phase; `arguments` is a snapshot of all so far (§4.4, delta fields)."""
    call = {"name": name, "arguments": arguments}
    fields = {"role": "assistant", "content": "", "phase": "answer", "function_id": function_id, "function_call": call}
    return delta(fields | {"status": "typing"})


def no_such_tool(name: str) -> str:
    """The platform's answer to a call it took for one of its own tools (§4.2, `function_calling`)."""
    text = f"Tool {name} does not exists."
    fields = {"role": "function", "content": text, "name": name, "phase": "answer", "status": "typing"}
    return delta(fields)


def error_object(code: str, details: str) -> str:
    """An error inside an opened stream (§4.7 b)."""
    return f'{{"error": {dumps({"code": code, "details": details})}, "response_id": "{RESPONSE_ID}"}}'


def error_string(text: str = "Internal error!") -> str:
    """The same as a plain string (§4.7 b)."""
    return dumps({"error": text})


def failure_line(code: str, details: str, num: int | None = None) -> str:
    """A whole `success: false` envelope as a frame (§4.7 b)."""
    return dumps(failure_payload(code, details, num=num))


def bare_failure(code: str, details: str, num: int | None = None) -> bytes:
    """The same without `data:`, in a body that claims to be a stream (§4.7 b)."""
    return failure_line(code, details, num).encode()


def bare_captcha() -> bytes:
    """The firewall's JSON in the middle of a stream, without `data:` (§4.7 b and c)."""
    return dumps(captcha_payload()).encode()


def comment(text: str = "keep-alive") -> bytes:
    """A line a reader of SSE ignores (§4.4 (2))."""
    return f": {text}\n\n".encode()


def null_content(phase: str = "answer") -> str:
    """`content` null (§12.1, 5)."""
    return delta({"role": "assistant", "content": None, "phase": phase, "status": "typing"})


def null_extra(content: str = "", *, name: str | None = None) -> str:
    """`extra` null, which broke a reader that trusts the name `web_search` (§5.1, §12.1)."""
    fields: dict[str, object] = {"role": "assistant", "content": content, "phase": "answer", "extra": None}
    if name is not None:
        fields |= {"name": name, "phase": "web_search"}
    return delta(fields | {"status": "typing"})


def empty_choices(used: str | None = None) -> str:
    """No choice at all (§12.1, 5)."""
    tail = "" if used is None else f', "usage": {used}'
    return f'{{"choices": [], "response_id": "{RESPONSE_ID}"{tail}}}'


def drifted(content: str) -> str:
    """An answer increment amid fields, a status and values this page does not know (§0: every enum is open)."""
    fields = {"role": "assistant", "content": content, "phase": "answer", "status": "streaming", "mood": {"level": 3}}
    body = delta(fields, timestamp=False)
    return body[:-1] + ', "trace": {"span": "a1"}, "schema": 3}'


def unknown_event() -> str:
    """A top-level event nobody has seen (§0: every enum is open)."""
    return f'{{"response.metrics": {{"chat_id": "{CHAT_ID}", "queue_ms": 12}}}}'
