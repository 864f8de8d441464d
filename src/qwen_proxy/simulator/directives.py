r"""Directives: `[[sim NAME ARGUMENTS]]` in the text of a request changes how the simulator answers it.

Which text: a gateway may fold a whole conversation into the one message the site takes, with headings of its own.
So only the last turn of a user counts: from the last line that looks like the heading of such a turn to the next
heading or the end. Headings are lines that begin with `[[user 7f3a]]`, `[User]`, `<user>`, `**User:**`, `User:` or
`{"role": "user"`, or consist of `## User`, `--- current message ---` and the like, for any role. A text without a
heading of a user counts whole.
"""

import re
from dataclasses import replace
from typing import NamedTuple

import qwen_proxy.simulator.replies as replies
from qwen_proxy.simulator.answers import Shape
from qwen_proxy.simulator.frames import bare_captcha, bare_failure, error_object, error_string, failure_line
from qwen_proxy.simulator.replies import Cut, Drop, Reply, Reset, Stall, Step

DIRECTIVE = re.compile(
    r"""\[\[sim\s+(call|agent|json)\b((?:[^"\]]|"(?:[^"\\]|\\.)*"|\](?!\]))*)\]\]
      | \[\[sim\s+([a-z0-9-]+)\s*(.*?)\]\]""",
    re.DOTALL | re.VERBOSE,
)
"""In `call`, `agent` and `json` double quotation marks may hold `]]`; the words of all others end at the first."""
_PREFIX = r"(?:(?:the|current|last|latest|new|next|previous)[ _-]+)*"
_ROLE = r"(system|developer|user|human|assistant|tool|function|history|conversation|message|question|end)"
_MORE = r"(?:[ _-]+(?:message|messages|turn|prompt|result|history|of|[0-9a-f]{4,16}|\d+))*"
_TURN = _PREFIX + _ROLE + _MORE + r"[ \t]*"
HEADING = re.compile(
    rf"""^[ \t]*(?: \[+{_TURN}\]+:?  |  <{_TURN}>  |  \*\*{_TURN}:?\*\*:?
      |  (?:\#+|={{2,}}|-{{2,}})\ *{_TURN}(?:=*|-*|:)(?=\s*$)
      |  {_TURN}:
      |  (?=\{{.*"role"\s*:\s*"(\w+)") )""",
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
ASKING = ("user", "human", "message", "question")
ENDS: dict[str, Step] = {"cut": Cut(), "drop": Drop(), "reset": Reset(), "stall": Stall()}


class Directive(NamedTuple):
    """A name, words, and `key=value` words apart; `raw` is everything after the name."""

    name: str
    words: tuple[str, ...]
    named: dict[str, str]
    raw: str

    def number(self, default: int) -> int:
        """The first word as a number of zero or more."""
        return int(self.words[0]) if self.words and self.words[0].isdecimal() else default

    def seconds(self, default: float) -> float:
        """The first word as a duration such as `200ms` or `3s`; a bare number is milliseconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)?", self.words[0]) if self.words else None
        if found is None:
            return default
        return float(found[1]) * (1.0 if found[2] == "s" else 0.001)


def last_part(text: str) -> str:
    """The last turn of a user in a folded conversation, or the whole text (see the module's rule)."""
    end = len(text)
    for heading in reversed(list(HEADING.finditer(text))):
        role = next((group for group in heading.groups() if group), "")
        part = text[heading.end() : end]
        if role.lower() in ASKING and part.strip():
            return part
        end = heading.start()
    return text


def part_at(text: str, at: int) -> str:
    """The turn that stands at a place of a folded conversation: from the heading before it to the one after it."""
    start, end = 0, len(text)
    for heading in HEADING.finditer(text):
        if heading.end() > at:
            end = heading.start()
            break
        start = heading.end()
    return text[start:end]


def read(text: str) -> list[Directive]:
    """The directives of a request's text."""
    return directives_of(last_part(text))[0]


def spoken(text: str) -> str:
    """The last turn without its directives: what the default answer repeats."""
    return directives_of(last_part(text))[1]


def directives_of(turn: str) -> tuple[list[Directive], str]:
    """The directives in one turn, and the turn without them."""
    if "[[sim" not in turn:
        return [], turn.strip()
    found = [
        _directive(match[1] or match[3], (match[2] or match[4] or "").strip()) for match in DIRECTIVE.finditer(turn)
    ]
    return found, DIRECTIVE.sub("", turn).strip()


def _directive(name: str, raw: str) -> Directive:
    named: dict[str, str] = {}
    plain: list[str] = []
    for key, quoted, bare, word in re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))|(\S+)', raw):
        if key:
            named[key] = quoted or bare
        else:
            plain.append(word)
    return Directive(name, tuple(plain), named, raw)


def shaped(shape: Shape, directives: list[Directive]) -> Shape | Reply:
    """The shape as the directives want it, or the answer that stands for the whole stream."""
    for directive in directives:
        refusal = _refusal(directive)
        if refusal is not None:
            return refusal
        shape = _change(shape, directive)
    return shape


def _refusal(directive: Directive) -> Reply | None:
    """Answers before any stream (§4.7)."""
    match directive.name:
        case "error":
            return _error(directive)
        case "challenge":
            return replies.waf_html() if "html" in directive.words else replies.captcha_json()
        case "status":
            return replies.unavailable(directive.number(503))
        case "hang":
            return replies.hang()
        case "empty-body":
            return replies.empty_body()
        case _:
            return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


STATUSES = {"RateLimited": 429, "Unauthorized": 401, "Not_Found": 404, "quota_limit": 429}


def _error(directive: Directive) -> Reply:
    """A failure envelope: `error RateLimited num=6`, `status=none` for no status header (§4.7 a)."""
    code = directive.words[0] if directive.words else "Bad_Request"
    details = directive.named.get("details") or _details(code)
    status = directive.named.get("status")
    actual = None if status == "none" else _number(status) or STATUSES.get(code, 400)
    num = _number(directive.named.get("num"))
    return replies.failure(code, details, actual, num=num, top_level="top" in directive.words)


def _details(code: str) -> str:
    if code in ("RateLimited", "quota_limit"):
        return "You've reached the upper limit for today's usage."
    return "Internal error..."


def _stream_error(directive: Directive) -> Step:
    """An error inside the stream, in each of its forms (§4.7 b)."""
    code = directive.words[0] if directive.words else "internal_error"
    details, num = directive.named.get("details") or _details(code), _number(directive.named.get("num"))
    match directive.named.get("form", "object"):
        case "string":
            return error_string(details)
        case "failure":
            return failure_line(code, details, num)
        case "bare":
            return bare_failure(code, details, num)
        case "captcha":
            return bare_captcha()
        case "html":
            return replies.WAF_PAGE
        case _:
            return error_object(code, details)


def _change(shape: Shape, directive: Directive) -> Shape:
    """One directive's effect; an unknown name has none, so that a text may contain anything."""
    word = directive.words[0] if directive.words else ""
    match directive.name:
        case "cut" | "drop" | "reset" | "stall":
            return replace(shape, ends=[ENDS[directive.name]], ends_after=directive.number(0))
        case "stream-error":
            after = _number(directive.named.get("after")) or 0
            return replace(shape, ends=[_stream_error(directive)], ends_after=after)
        case "think":
            style = word if word in ("grow", "append", "finished", "detail") else "grow"
            return replace(shape, thinking=style)
        case "search":
            return replace(shape, search=word if word in ("one", "two", "both") else "one")
        case "candidates":
            order = word if word in ("zero-first", "one-first", "zero-silent") else "zero-first"
            return replace(shape, candidates=order)
        case _:
            return _change_text(shape, directive)


def _change_text(shape: Shape, directive: Directive) -> Shape:
    match directive.name:
        case "say":
            return replace(shape, text=directive.raw)
        case "repeat":
            count = min(directive.number(100), 20_000)
            return replace(shape, text=" ".join(f"word{number}" for number in range(1, count + 1)))
        case "slow":
            return replace(shape, pause_seconds=directive.seconds(0.2))
        case "delay":
            return replace(shape, delay_seconds=directive.seconds(1.0))
        case "keep-alive":
            return replace(shape, keep_alives=min(directive.number(2), 1000))
        case "empty":
            return replace(shape, silent=True)
        case "no-text":
            return replace(shape, text="")
        case "think-only":
            return replace(shape, thinking=shape.thinking or "grow", answers=False)
        case "image":
            return replace(shape, image="chat")
        case "drift":
            return replace(shape, drift=True)
        case "quirks":
            return replace(shape, quirks=True)
        case "phase":
            return replace(shape, phase=directive.words[0] if directive.words else None)
        case "pieces":
            return replace(shape, piece_characters=max(1, directive.number(20)))
        case _:
            return _change_wire(shape, directive)


def _change_wire(shape: Shape, directive: Directive) -> Shape:
    match directive.name:
        case "bytes":
            return replace(shape, chunking=max(1, directive.number(1)))
        case "one-segment":
            return replace(shape, chunking="one")
        case "crlf":
            return replace(shape, newline="\r\n")
        case "no-blank-line":
            return replace(shape, trailing_blank_line=False)
        case "done":
            return replace(shape, done=True)
        case "gzip" | "deflate" | "zstd":
            return replace(shape, encoding=directive.name)
        case _:
            return shape
