"""The marker lines of a form with one nonce: which line is one, and which may still become one. Pure."""

import re
from typing import Final, NamedTuple

from qwen_proxy.toolcalls.form import Form

LINE_CHARACTERS: Final = 160  # text is held back no longer for a line that may be a marker
_BLANKS: Final = " \t\r"
_GAP: Final = r"[ \t]+"
NO_NONCE: Final = "-"
_OPENS: Final = r"\[{1,3}"


class Marker(NamedTuple):
    """kind: `call`, `arg`, `end` or `result`. name: the tool or the parameter."""

    kind: str
    name: str = ""


class Opening(NamedTuple):
    """A line that opens a call. spelling: the nonce as it stands there. is_exact: the line is as it was taught."""

    name: str
    spelling: str
    is_exact: bool


class Spelled:
    """The markers of a form with one spelling of the nonce. Only what is alone on its line and exact is one.

    end: the marker of a call's end. argument: how that of a parameter begins.
    """

    def __init__(self, form: Form, nonce: str) -> None:
        self.nonce = nonce
        self.end = form.end.format(nonce=nonce)
        self._named = tuple(
            (kind, head.format(nonce=nonce), tail)
            for kind, template in (("arg", form.arg), ("call", form.call), ("result", form.result))
            for head, _, tail in (_around_name(template),)
        )
        self.argument = self._named[0][1]

    def marker(self, line: str) -> Marker | None:
        """What a line is, without its line feed."""
        line = line.rstrip(_BLANKS)
        if line == self.end:
            return Marker("end")
        for kind, head, tail in self._named:
            if line.startswith(head) and line.endswith(tail) and len(line) > len(head) + len(tail):
                return Marker(kind, line[len(head) : -len(tail)])
        return None


def _around_name(template: str) -> tuple[str, str, str]:
    """A template's text before what is named and behind it."""
    first = "{number}" if "{number}" in template else "{name}"
    return template[: template.index(first)], first, template.rpartition("}")[2]


class Markers:
    """`lead`: how every marker begins. `limit`: how long a line may be while it is held back for being one."""

    def __init__(self, form: Form, nonce: str, longest_name: int) -> None:
        self.form = form
        self.nonce = nonce
        self.exact = Spelled(form, nonce)
        self.limit = max(LINE_CHARACTERS, longest_name + 48)
        heads = [template[: template.index("{nonce}")] for template in (form.call, form.arg, form.end, form.result)]
        self.lead = _common(heads)
        self._words = [head[len(self.lead) :].rstrip() for head in heads]
        self._call = _lenient(form.call)
        self._end = _lenient(form.end)
        named = _loose(form.arg, r"[^\]\n]+?")
        self._anywhere = re.compile(f"(?P<arg>{named})|(?P<end>{_loose(form.end, '')})", re.IGNORECASE | re.MULTILINE)

    def may_be(self, partial: str) -> bool:
        """Whether a line that begins so may be a marker, rightly spelt or nearly; it begins with some bracket."""
        indented = partial.lstrip(" ")
        text = indented.lstrip("*_")
        rest = text.lstrip(self.lead[0])
        if (
            len(partial) > self.limit
            or len(partial) - len(indented) > 3
            or len(indented) - len(text) > 3
            or len(text) - len(rest) > 3
        ):
            return False
        return any(rest.startswith(word) or word.startswith(rest) for word in self._words)

    def opening(self, line: str) -> Opening | None:
        """The call that a line opens, also with a nonce one edit away."""
        found = self.exact.marker(line)
        if found is not None and found.kind == "call":
            return Opening(found.name, self.nonce, is_exact=True)
        lenient = self._call.fullmatch(line.rstrip(_BLANKS))
        if lenient is None or not is_near(lenient[1] or "", self.nonce):
            return None
        is_plain = line.lstrip(" ").startswith(self.lead[0])
        return Opening(lenient[2], lenient[1], is_exact=is_plain and lenient[1] == self.nonce)

    def foreign_nonce(self, line: str) -> str:
        """The nonce of a line that would open a call if it were ours (NO_NONCE if it has none); else empty."""
        lenient = self._call.fullmatch(line.rstrip(_BLANKS))
        return (lenient[1] or NO_NONCE) if lenient else ""

    def ends(self, line: str, nonce: str) -> bool:
        """Whether a line ends a call with that nonce."""
        lenient = self._end.fullmatch(line.rstrip(_BLANKS))
        return lenient is not None and (lenient[1] or NO_NONCE) == nonce

    def is_near_end(self, line: str) -> bool:
        """Whether a line ends a call, also with a nonce one edit away, or none."""
        lenient = self._end.fullmatch(line.rstrip(_BLANKS))
        return lenient is not None and (lenient[1] is None or is_near(lenient[1], self.nonce))

    def is_half_end(self, line: str) -> bool:
        """Whether a line, the last of a text, is the beginning of an end marker and of no other."""
        line = line.rstrip(_BLANKS)
        return self.exact.end.startswith(line) and len(line) > len(self.lead)

    def anywhere(self, text: str) -> list[tuple[int, int, Marker]]:
        """All that looks like a marker of a nonce one edit away, wherever it stands: start, end, what it is."""
        found: list[tuple[int, int, Marker]] = []
        for match in self._anywhere.finditer(text):
            kind = "arg" if match["arg"] else "end"
            nonce, name = (match[2], match[3]) if kind == "arg" else (match[5], "")
            if is_near(nonce, self.nonce):
                found.append((match.start(), match.end(), Marker(kind, name)))
        return found


def _common(heads: list[str]) -> str:
    shortest = min(heads, key=len)
    return next(
        (shortest[:n] for n in range(len(shortest), 0, -1) if all(h.startswith(shortest[:n]) for h in heads)), ""
    )


def _lenient(template: str) -> re.Pattern[str]:
    """A template's line with its brackets and blanks not counted, perhaps in bold, and any nonce or none."""
    nonce = r"\{nonce\}"
    pattern = (
        _brackets(template).replace(f"{nonce}\\ ", f"(?:{nonce}{_GAP})?").replace(f"\\ {nonce}", f"(?:{_GAP}{nonce})?")
    )
    pattern = pattern.replace("\\ ", _GAP)
    name = r"([^\]]+(?:\][^\]]+)*?)[ \t]*"
    return re.compile(
        " {0,3}[*_]{0,3}"
        + pattern.replace(r"\{nonce\}", "([0-9A-Za-z]{1,12})").replace(r"\{name\}", name)
        + "[*_]{0,3}",
        re.IGNORECASE,
    )


def _brackets(template: str) -> str:
    return re.escape(template).replace(r"\[\[", _OPENS).replace(r"\]\]", r"\]{1,3}")


def _loose(template: str, name: str) -> str:
    """A marker anywhere. Behind other text on its line, signs before it are that text's, and so is a third bracket."""
    pattern = _brackets(template).replace(r"\ ", "[ \t]+") + r"[*_]{0,3}"
    pattern = pattern.replace(_OPENS, rf"(?:^[ ]{{0,3}}[*_]{{0,3}}{_OPENS}|\[{{1,2}})", 1)
    return pattern.replace(r"\{nonce\}", "([0-9A-Za-z]{1,12})").replace(r"\{name\}", f"({name})")


def is_near(written: str, nonce: str) -> bool:
    """Whether a nonce is meant: at most one digit wrong, missing, too many, or two of them exchanged; any case."""
    written, nonce = written.lower(), nonce.lower()
    if written == nonce:
        return True
    start = next(
        (i for i, (a, b) in enumerate(zip(written, nonce, strict=False)) if a != b), min(len(written), len(nonce))
    )
    a, b = written[start:], nonce[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[2:] == b[2:] and a[:2] == b[1::-1])
