"""Command lines as browsers write them for "copy as cURL" and "copy as PowerShell", taken apart. Pure.

Nothing is run or looked up: of each shell only the quoting that browsers use is known. Sources: the shells' manuals,
and Chromium's and Firefox's developer tools, whose output for a Windows prompt escapes special characters with `^`.
"""

import re
from collections.abc import Iterator
from typing import Final

LAST_CHARACTER: Final = 0x10FFFF

_ANSI: Final = {"a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ANSI_ESCAPE: Final = re.compile(
    r"\\(?:u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL
)
_BASH: Final = re.compile(
    r"""(?P<ansi>\$'(?:[^'\\]|\\.)*')
      | (?P<single>'[^']*')
      | (?P<double>\$?"(?:[^"\\]|\\.)*")
      | (?P<escape>\\(?:\r\n|.))
      | (?P<space>\s+)
      | (?P<plain>[^\s'"\\$]+|\$(?!['"]))
    """,
    re.VERBOSE | re.DOTALL,
)
_CMD_IS_ESCAPED: Final = re.compile(r'\^"|\^[ \t]*\r?\n')
_BASH_BEGINS: Final = re.compile(r"\s*\S+\s+\$?'")
_CARET: Final = re.compile(r"\^(?:(\r?\n)(\r?\n)?|(.))?", re.DOTALL)
_CMD: Final = re.compile(r'(?P<escape>\\["\\])|(?P<pair>"")|(?P<quote>")|(?P<space>\s+)|(?P<plain>[^\s"\\]+|\\)')
_POWERSHELL_TEXT: Final = r'"((?:[^"`]|`.|"")*)"'
_POWERSHELL_COOKIE: Final = re.compile(
    r"System\.Net\.Cookie\(\s*" + r"\s*,\s*".join([_POWERSHELL_TEXT] * 4) + r"\s*\)", re.DOTALL
)
_POWERSHELL_HEADER: Final = re.compile(r'"cookie"\s*=\s*' + _POWERSHELL_TEXT, re.DOTALL | re.IGNORECASE)
_POWERSHELL_ESCAPE: Final = re.compile(r'`(.)|"(")|\$\(\[char\]([0-9]{1,7})\)', re.DOTALL)


class Unclosed(ValueError):
    """A quote that was opened does not end: a part of the command is missing."""


def words(command: str) -> list[str]:
    """The words of a command for bash or for a Windows prompt, whichever it looks like. Raises Unclosed."""
    if not _BASH_BEGINS.match(command) and _CMD_IS_ESCAPED.search(command):
        return _cmd_words(command)
    return _bash_words(command)


def _bash_words(command: str) -> list[str]:
    found: list[str] = []
    word: str | None = None
    for kind, text in _tokens(_BASH, command):
        if kind == "space":
            if word is not None:
                found.append(word)
            word = None
        elif not (kind == "escape" and text in ("\\\n", "\\\r\n")):  # else the line goes on
            word = (word or "") + _bash_value(kind, text)
    return found if word is None else [*found, word]


def _bash_value(kind: str, text: str) -> str:
    match kind:
        case "ansi":
            return _ANSI_ESCAPE.sub(_ansi, text[2:-1])
        case "single":
            return text[1:-1]
        case "double":
            return re.sub(r'\\(?:\r?\n|(["\\$`]))', lambda match: match[1] or "", text[text.index('"') + 1 : -1])
        case "escape":
            return text[1:]
        case _:
            return text


def _ansi(match: re.Match[str]) -> str:
    if match[5]:
        return _ANSI.get(match[5], match[5])
    code = int(match[4], 8) if match[4] else int(match[1] or match[2] or match[3], 16)
    return chr(min(code, LAST_CHARACTER))


def _cmd_words(command: str) -> list[str]:
    """First the prompt takes its carets away, then the program splits what is left."""
    if '^"' in command:
        command = _CARET.sub(lambda match: (match[2] or " ") if match[1] else (match[3] or ""), command)
    else:
        command = re.sub(r"\^[ \t]*\r?\n", " ", command)
    found: list[str] = []
    word: str | None = None
    is_quoted = False
    for kind, text in _tokens(_CMD, command):
        if kind == "quote":
            is_quoted = not is_quoted
            word = word or ""
        elif kind == "pair":
            word = (word or "") + ('"' if is_quoted else "")
        elif kind == "space" and not is_quoted:
            if word is not None:
                found.append(word)
            word = None
        else:
            word = (word or "") + (text[1:] if kind == "escape" else text)
    if is_quoted:
        raise Unclosed
    return found if word is None else [*found, word]


def _tokens(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            raise Unclosed
        position = match.end()
        yield match.lastgroup or "", match[0]


def powershell_cookies(script: str) -> list[tuple[str, str, str, str]]:
    """Name, value, path and domain of each cookie that the script makes."""
    found = _POWERSHELL_COOKIE.finditer(script)
    return [
        (_powershell(match[1]), _powershell(match[2]), _powershell(match[3]), _powershell(match[4])) for match in found
    ]


def powershell_headers(script: str) -> list[str]:
    """The Cookie headers of the script."""
    return [_powershell(text) for text in _POWERSHELL_HEADER.findall(script)]


def _powershell(text: str) -> str:
    return _POWERSHELL_ESCAPE.sub(lambda match: match[1] or match[2] or chr(min(int(match[3]), LAST_CHARACTER)), text)
