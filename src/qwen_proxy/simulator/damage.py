"""Breaks calls in the ways models break them: in their markers, their JSON, their names, or where they stop.

Each function makes text of the calls' blocks. `where` (0 to 1) is the place of a cut, as a part of the whole.
Source: the faults that threads of such gateways report (tool-call page §1, §3).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from qwen_proxy.simulator.forms import Block
from qwen_proxy.simulator.roles import Call
from qwen_proxy.simulator.taught import Taught

Blocks = Sequence[Block]


def joined(blocks: Blocks) -> str:
    return "\n".join(str(block) for block in blocks)


# what strikes the text


def _swallowed(blocks: Blocks, taught: Taught, where: float) -> str:
    """The first opening never comes, as when the site takes the tag for its own."""
    return joined([replace(blocks[0], opening=""), *blocks[1:]])


def _twice(blocks: Blocks, taught: Taught, where: float) -> str:
    """The end twice."""
    return joined([replace(block, closing=f"{block.closing}\n{block.closing.strip()}") for block in blocks])


def _no_end(blocks: Blocks, taught: Taught, where: float) -> str:
    """Everything but the last end."""
    return joined([*blocks[:-1], replace(blocks[-1], closing="")])


def _half_end(blocks: Blocks, taught: Taught, where: float) -> str:
    """The stream stops in the last end."""
    closing = blocks[-1].closing
    return joined([*blocks[:-1], replace(blocks[-1], closing=closing[: 1 + int(where * (len(closing) - 1))])])


def _cut(blocks: Blocks, taught: Taught, where: float) -> str:
    """The stream stops amid the arguments of the last call."""
    body = blocks[-1].body
    kept = body[: max(1, int((0.2 + 0.7 * where) * len(body)))]
    return joined([*blocks[:-1], replace(blocks[-1], body=kept, closing="")])


def _brace(blocks: Blocks, taught: Taught, where: float) -> str:
    """A brace too many before the end."""
    return joined([replace(block, body=_before_line_end(block.body, "}")) for block in blocks])


def _brace_missing(blocks: Blocks, taught: Taught, where: float) -> str:
    """The last brace is missing."""
    return joined([replace(block, body=re.sub(r"\}(\s*)$", r"\1", block.body)) for block in blocks])


def _before_line_end(body: str, more: str) -> str:
    stripped = body.rstrip("\n")
    return stripped + more + body[len(stripped) :]


def _other_code(nonce: str, digits: int) -> str:
    """A code that differs in so many digits."""
    turned = "".join("f" if character != "f" else "0" for character in nonce[:digits])
    return turned + nonce[digits:]


def _wrong_code(blocks: Blocks, taught: Taught, where: float) -> str:
    """A code the prompt never taught, on every marker."""
    return _recoded(blocks, taught, 4)


def _near_code(blocks: Blocks, taught: Taught, where: float) -> str:
    """A code one digit away, the same on every marker."""
    return _recoded(blocks, taught, 1)


def _recoded(blocks: Blocks, taught: Taught, digits: int) -> str:
    nonce = _other_code(taught.nonce, digits)
    lines = joined(blocks).split("\n")
    marks = {taught.ending()}
    heads = tuple(template.split("{nonce}")[0] + taught.nonce for template in (taught.call, taught.arg))
    changed = [
        line.replace(taught.nonce, nonce, 1) if line in marks or line.startswith(heads) else line for line in lines
    ]
    return "\n".join(changed)


def _prose(blocks: Blocks, taught: Taught, where: float) -> str:
    """Prose after the call, as if it were done."""
    return joined(blocks) + "\n\nDone! The tool has finished, and all is well.\n"


def _invented(blocks: Blocks, taught: Taught, where: float) -> str:
    """The model makes up the result, and plays on."""
    head = taught.call.split("{nonce}")[0].replace("call", "result") + taught.nonce
    return (
        f"{joined(blocks)}\n{head} #1 tool]]\nok, all is well\n{taught.ending()}\nThe result says that all is well.\n"
    )


def _spaced(blocks: Blocks, taught: Taught, where: float) -> str:
    """Spaces behind the markers."""
    heads = tuple(template.split("{nonce}")[0] + taught.nonce for template in (taught.call, taught.arg, taught.end))
    return "\n".join(line + "  " if line.startswith(heads) else line for line in joined(blocks).split("\n"))


def _preamble(blocks: Blocks, taught: Taught, where: float) -> str:
    """Prose before the call, which is no fault."""
    return "I'll do that now.\n\n" + joined(blocks)


def _in_a_fence(blocks: Blocks, taught: Taught, where: float) -> str:
    """The whole call in a code fence."""
    return f"```\n{joined(blocks)}\n```"


TEXT: dict[str, Callable[[Blocks, Taught, float], str]] = {
    "swallowed": _swallowed,
    "end-twice": _twice,
    "no-end": _no_end,
    "half-end": _half_end,
    "cut": _cut,
    "brace": _brace,
    "brace-missing": _brace_missing,
    "wrong-code": _wrong_code,
    "near-code": _near_code,
    "prose-after": _prose,
    "invented-result": _invented,
    "spaces": _spaced,
    "preamble": _preamble,
    "in-a-fence": _in_a_fence,
}
"""What strikes the written text, by name."""


# what strikes JSON


def _outside(text: str, change: Callable[[str], str]) -> str:
    """Change what stands outside of JSON strings."""
    pieces = re.split(r'("(?:[^"\\]|\\.)*")', text)
    return "".join(piece if index % 2 else change(piece) for index, piece in enumerate(pieces))


def _strings(text: str, change: Callable[[str], str]) -> str:
    """Change the JSON strings, quotation marks included."""
    pieces = re.split(r'("(?:[^"\\]|\\.)*")', text)
    return "".join(change(piece) if index % 2 else piece for index, piece in enumerate(pieces))


def _single(text: str) -> str:
    """Single quotation marks, as in Python."""
    return _strings(text, lambda string: "'" + string[1:-1].replace('\\"', '"').replace("'", "\\'") + "'")


def _trailing(text: str) -> str:
    """A comma behind the last member."""
    return _outside(text, lambda piece: re.sub(r"([}\]])", r",\1", piece))


def _python(text: str) -> str:
    """True, False and None."""
    words = {"true": "True", "false": "False", "null": "None"}
    return _outside(text, lambda piece: re.sub(r"\b(true|false|null)\b", lambda found: words[found[1]], piece))


def _line_feeds(text: str) -> str:
    """Line feeds and tabs as they are within strings."""
    return _strings(text, lambda string: re.sub(r"\\(.)", lambda at: {"n": "\n", "t": "\t"}.get(at[1], at[0]), string))


def _unquoted(text: str) -> str:
    """Keys without quotation marks."""
    return re.sub(r'(?<=[{,] )"([A-Za-z_]\w*)"(?=:)|(?<=\{)"([A-Za-z_]\w*)"(?=:)', r"\1\2", text)


def _fenced(text: str) -> str:
    """The JSON in a code fence."""
    return f"```json\n{text}\n```"


JSON: dict[str, Callable[[str], str]] = {
    "single-quotes": _single,
    "trailing-comma": _trailing,
    "python-words": _python,
    "line-feeds": _line_feeds,
    "bare-keys": _unquoted,
    "json-fence": _fenced,
}
"""What strikes a JSON text, by name."""


# what strikes the call itself


def _lower(call: Call) -> Call:
    """The name in the wrong case."""
    return call._replace(name=call.name.lower() if call.name != call.name.lower() else call.name.upper())


def _prefixed(call: Call) -> Call:
    """The name with a prefix other APIs have."""
    return call._replace(name=f"functions.{call.name}")


def _unknown(call: Call) -> Call:
    """A tool nobody offered."""
    return call._replace(name="summon_dragon")


def _misspelt(call: Call) -> Call:
    """The longest key with a letter doubled."""
    longest = max(call.arguments, key=len, default="")
    changed = {(key + key[-1] if key == longest else key): value for key, value in call.arguments.items()}
    return call._replace(arguments=changed)


def _missing(call: Call) -> Call:
    """Without its first argument."""
    return call._replace(arguments=dict(list(call.arguments.items())[1:]))


def _stringly(call: Call) -> Call:
    """Numbers and booleans as strings."""
    changed = {
        key: str(value).lower() if isinstance(value, bool | int | float) else value
        for key, value in call.arguments.items()
    }
    return call._replace(arguments=changed)


CALL: dict[str, Callable[[Call], Call]] = {
    "name-case": _lower,
    "name-prefix": _prefixed,
    "unknown-tool": _unknown,
    "misspelt-key": _misspelt,
    "missing-argument": _missing,
    "strings-for-numbers": _stringly,
}
"""What strikes the call before it is written, by name."""

KINDS = (*TEXT, *JSON, *CALL)
