"""A fixed set of tasks for real models: what is asked, which tools are there, and what a good answer is."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.toolbench.kit import BY_NAME, Arguments

CODE = """\
def quoted(text: str) -> str:
    '''It's a "test" of \\\\n, tabs\\tand 🙂.'''
    return f"<{text!r}>" + "\\\\"
"""
PATH = "/srv/app/quoted.py"

Calls = Sequence[tuple[str, Arguments]]
Turn = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """good: whether these calls and this text are what was asked for.

    wishes, says, script: what tells a simulated model to do so; a script where the conversation has gone on.
    """

    name: str
    ask: str
    good: Callable[[Calls, str], bool]
    tools: tuple[str, ...] = ("Write", "Edit", "Bash", "read_files")
    wishes: tuple[tuple[str, Arguments], ...] = ()
    says: str = ""
    script: str = ""
    history: tuple[Turn, ...] = ()
    choice: object = "auto"
    extra: dict[str, object] = field(default_factory=dict[str, object])

    def body(self, model: str, padding: str, *, simulated: bool) -> Turn:
        """The request, in OpenAI's form, not streamed. padding: a system text that makes the prompt longer."""
        ask = self.ask
        if simulated:
            directives = [f"[[sim call {name} {json.dumps(given)}]]" for name, given in self.wishes]
            directives += [f"[[sim say {self.says}]]"] if self.says else []
            directives += [self.script] if self.script else []
            ask = " ".join([ask, *directives])
        system = [{"role": "system", "content": padding}] if padding else []
        messages = [*system, {"role": "user", "content": ask}, *self.history]
        tools = [
            {"type": "function", "function": {"name": name, "parameters": BY_NAME[name].schema}} for name in self.tools
        ]
        return {"model": model, "messages": messages, "tools": tools, "tool_choice": self.choice} | self.extra


def exactly(*wanted: tuple[str, Arguments]) -> Callable[[Calls, str], bool]:
    return lambda calls, text: list(calls) == list(wanted)


def _called(name: str, arguments: Arguments, call_id: str = "call_1") -> Turn:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def _gave(text: str, call_id: str = "call_1") -> Turn:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


_WRITE = ("Write", {"file_path": PATH, "content": CODE})
_READS = tuple(("read_files", {"files": [{"path": path}]}) for path in ("/srv/a.py", "/srv/b.py"))
_SEARCH: Arguments = {
    "query": "TODO", "kind": "regex", "limit": 5, "filters": {"languages": ["py", "rs"], "deep": True, "ratio": 0.5},
}  # fmt: skip
_EDIT = ("Edit", {"file_path": PATH, "old_string": "return 1", "new_string": "return 2", "replace_all": True})

TASKS = (
    Task("one call", "Run the command `ls -la /srv` once.", exactly(("Bash", {"command": "ls -la /srv"})),
         wishes=(("Bash", {"command": "ls -la /srv"}),)),
    Task("code as it is", f"Write exactly this text to {PATH}:\n\n{CODE}\n(It ends with a line feed.) No more.",
         exactly(_WRITE), wishes=(_WRITE,)),
    Task("a nested object", f"Call search_code once with exactly these arguments: {json.dumps(_SEARCH)}",
         exactly(("search_code", _SEARCH)), tools=("search_code", "Bash", "Write"), wishes=(("search_code", _SEARCH),)),
    Task("two calls at once", "Read /srv/a.py and /srv/b.py, with two separate calls of read_files in one reply.",
         exactly(*_READS), wishes=_READS),
    Task("a boolean", f"In {PATH} replace `return 1` by `return 2` everywhere, with one call of Edit and replace_all.",
         exactly(_EDIT), wishes=(_EDIT,)),
    Task("a tool with no parameters", "List my tasks.", exactly(("list_tasks", {})), tools=("list_tasks", "Bash"),
         wishes=(("list_tasks", {}),)),
    Task("no call needed", "What is 2 + 2? Answer with the number alone; no tool is needed.",
         lambda calls, text: not calls and text.strip().rstrip(".") == "4", says="4"),
    Task("an answer from a result", "Which port does /srv/conf use? Read it, then answer with the number alone.",
         lambda calls, text: not calls and "8443" in text,
         history=(_called("Bash", {"command": "cat /srv/conf"}), _gave("listen = 8443\n"))),
    Task("a call after a failure", "Read /srv/conf with Bash. If that fails, read /srv/conf.bak with Bash.",
         lambda calls, text: len(calls) == 1 and "/srv/conf.bak" in str(calls[0][1]),
         script='[[sim agent shell command="cat /srv/conf" | shell command="cat /srv/conf.bak"]]',
         history=(_called("Bash", {"command": "cat /srv/conf"}), _gave("cat: /srv/conf: No such file or directory"))),
    Task("a call that has to be made", "Hello!", lambda calls, text: len(calls) >= 1, choice="required",
         wishes=(("Bash", {"command": "true"}),)),
    Task("a named tool", "Hello!", lambda calls, text: [name for name, _ in calls] == ["list_tasks"],
         tools=("list_tasks", "Bash"), choice={"type": "function", "function": {"name": "list_tasks"}},
         wishes=(("list_tasks", {}),)),
    Task("one of two", "Read /srv/a.py and /srv/b.py.", lambda calls, text: len(calls) == 1,
         extra={"parallel_tool_calls": False}, wishes=_READS),
)  # fmt: skip
