"""Texts that only show calls: documentation in many styles, quotations, logs, patches, and this project's own pages.

None of them is a call. Each begins with something said, as an answer that explains does; an answer that begins with a
JSON call in a fence is a call, and is not here.
"""

import html
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.toolbench import payloads
from bench.toolbench.draft import TAUGHT
from bench.toolbench.kit import KIT
from bench.toolbench.payloads import Chance
from qwen_proxy.simulator.forms import FOREIGN, taught_block
from qwen_proxy.simulator.roles import Call
from qwen_proxy.simulator.taught import Taught

NONCE = "b04c"
"""Of the conversation; the calls shown have others."""

TEACHING = Taught("", "[[call {nonce} {name}]]", "[[arg {nonce} {name}]]", "[[end {nonce}]]")
INTRODUCTIONS = (
    "A model that was trained on this form writes its calls so:", "Here is an example.", "## Calling a tool\n",
    "The log of the failed run ends with these lines:", "You asked what the reply looked like. It was:",
    "Some clients expect the following.", "*Note*: older versions printed", "1. The server receives:", "Beispiel:",
    "The parser has to cope with input such as this one, which is taken from a bug report.",
)  # fmt: skip
CLOSINGS = (
    "", "\nNothing is called here; it is an example.", "\nThe closing mark matters.", "\n\nSee also the next section.",
    "\nReplace the name by that of your tool.", "\n\n---\n",
)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A text with no call in it, and how it shows one."""

    style: str
    text: str


def _lines(prefix: str) -> Callable[[str], str]:
    return lambda block: "\n".join(prefix + line for line in block.split("\n"))


def _numbered(block: str) -> str:
    return "\n".join(f"{number:>6}\u2192{line}" for number, line in enumerate(block.split("\n"), 1))


def _patch(block: str) -> str:
    added = "\n".join("+" + line for line in block.split("\n"))
    return f"```diff\n--- a/prompt.txt\n+++ b/prompt.txt\n@@ -1,0 +1,9 @@\n{added}\n```"


def _inline(block: str) -> str:
    return "The form is `" + " ".join(block.split()) + "`, on one line."


def _sentence(block: str) -> str:
    return "It begins with " + block.split("\n")[0] + " and ends with " + block.split("\n")[-1] + ", they say."


def _table(block: str) -> str:
    rows = "\n".join(
        f"| {number} | `{line.replace('|', chr(92) + '|')}` |" for number, line in enumerate(block.split("\n"), 1)
    )
    return f"| line | text |\n|---|---|\n{rows}"


def _python(block: str) -> str:
    return f"```python\nEXAMPLE = '''\\\n{block}\n'''\nassert parse(EXAMPLE)\n```"


def _shell(block: str) -> str:
    return f"```sh\ncat > example.txt <<'END'\n{block}\nEND\n```"


def _nested_fence(block: str) -> str:
    return f"````markdown\nIn a page:\n\n```xml\n{block}\n```\n\nand so on.\n````"


def _html_page(block: str) -> str:
    return f"<pre><code>{html.escape(block, quote=False)}</code></pre>"


def _json_string(block: str) -> str:
    return "The body was " + json.dumps({"role": "assistant", "content": block}) + " as recorded."


def _restructured(block: str) -> str:
    return ".. code-block:: xml\n   :linenos:\n\n" + _lines("   ")(block)


def _transcript(block: str) -> str:
    return "> **user**: how?\n>\n> **assistant**:\n" + _lines("> ")(block)


def _open_fence(block: str) -> str:
    """Up to the end of the text; once, for a second one would close the first."""
    return f"```\n{block}"


def _placeholder(block: str) -> str:
    """Unfenced, but nobody's call: the name is a word that stands for names (see `_page`)."""
    return block


STYLES: dict[str, Callable[[str], str]] = {
    "fence": lambda block: f"```\n{block}\n```",
    "fence with a language": lambda block: f"```xml\n{block}\n```",
    "JSON fence": lambda block: f"```json\n{block}\n```",
    "tilde fence": lambda block: f"~~~text\n{block}\n~~~",
    "long fence": lambda block: f"`````\n{block}\n`````",
    "fence in a list": lambda block: "- so:\n\n" + _lines("  ")(f"```\n{block}\n```"),
    "fence within a fence": _nested_fence,
    "open fence": _open_fence,
    "indented by four": _lines("    "),
    "indented by a tab": _lines("\t"),
    "quotation": _lines("> "),
    "quotation of a fence": lambda block: _lines("> ")(f"```\n{block}\n```"),
    "transcript": _transcript,
    "list": _lines("- "),
    "comment": _lines("# "),
    "log": _lines("2026-11-24 10:00:00 DEBUG "),
    "prompt of a shell": _lines("$ "),
    "numbered lines": _numbered,
    "patch": _patch,
    "inline code": _inline,
    "sentence": _sentence,
    "table": _table,
    "Python string": _python,
    "here document": _shell,
    "HTML": _html_page,
    "JSON string": _json_string,
    "reStructuredText": _restructured,
    "placeholders": _placeholder,
}


def shown(seed: int, times: int) -> Iterator[Shown]:
    """Every style with every form, so many times, then the project's pages."""
    chance = Chance(seed)
    for style, write in STYLES.items():
        for form in (TAUGHT, *FOREIGN):
            for _ in range(times):
                yield Shown(f"{style}, {form}", _page(form, write, chance))
    yield from _pages()


def _page(form: str, write: Callable[[str], str], chance: Chance) -> str:
    """One or two examples among words."""
    parts = list[str]()
    for _ in range(1 if write is _open_fence else chance.choice((1, 1, 2))):
        tool = chance.choice(KIT)
        call = Call(tool.name, tool.make(chance, ("```", "~~~", "````", NONCE, "<|im_end|>", "\r", "'''")))
        # Two lines of code are enough to show a form.
        call = call._replace(arguments={key: _brief(value) for key, value in call.arguments.items()})
        if write is _placeholder:
            call = call._replace(name="TOOL_NAME")
        taught = Taught(f"{chance.randrange(16**4):04x}", TEACHING.call, TEACHING.arg, TEACHING.end)
        if sum(a != b for a, b in zip(taught.nonce, NONCE, strict=True)) < 2:
            taught = Taught("1111", TEACHING.call, TEACHING.arg, TEACHING.end)
        block = taught_block(call, taught, tool.raw()) if form == TAUGHT else FOREIGN[form](call)
        parts.append(f"{chance.choice(INTRODUCTIONS)}\n\n{write(str(block))}\n{chance.choice(CLOSINGS)}")
    return "\n\n".join(parts)


def _brief(value: object) -> object:
    if not isinstance(value, str):
        return value
    # A line that a hostile payload brought could itself be a call at the start of a line.
    return "\n".join(line for line in value.split("\n")[:2] if not line.startswith(("<", "{", "[[", "[TOOL", ">")))


def _pages() -> Iterator[Shown]:
    """Pages and sources of this project that speak of calls, whole and by paragraphs."""
    checkout = payloads.CHECKOUT
    pages = sorted([*(checkout / "docs").rglob("*.md"), checkout / "README.md", checkout / "CHANGELOG.md"])
    for page in pages:
        yield Shown(f"page {page.name}", page.read_text(encoding="utf-8"))
    for source in sorted((checkout / "src/qwen_proxy/toolcalls").rglob("*.py")):
        yield Shown(f"source {source.name}", f"The file:\n\n```python\n{source.read_text(encoding='utf-8')}\n```\n")
    for source in sorted((checkout / "src/qwen_proxy/simulator").rglob("*.py")):
        yield Shown(f"source {source.name}", "The file:\n\n" + source.read_text(encoding="utf-8"))
