"""Which of the offered tools writes, edits or reads a file or runs a command, and how its parameters are filled.

Every coding agent names them in its own way; one script is to do for all (`write`, `edit`, `read`, `shell`).
"""

import re
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from qwen_proxy.simulator.offers import Offer, Parameter

NAMES: dict[str, tuple[str, ...]] = {
    "write": ("write", "write_file", "writefile", "create_file", "create_new_file", "editor", "write_to_file"),
    "edit": ("edit", "replace", "edit_file", "str_replace", "editor", "edit_existing_file", "replace_in_file"),
    "read": ("read", "read_file", "readfile", "view", "view_file", "read_files"),
    "shell": (
        "bash", "shell", "run_shell_command", "exec_command", "run_commands", "run_terminal_command",
        "execute_command", "shell_command", "local_shell",
    ),
}  # fmt: skip
"""Tools of a role, in lower case with underscores, the preferred first."""

FIELDS: dict[str, re.Pattern[str]] = {
    "path": re.compile(r"(absolute_?|file_?|target_?)*(path|file_?name|file)s?$"),
    "content": re.compile(r"(file_?)?(contents?|new_text|text|data)$"),
    "old": re.compile(r"(old|search)(_?(string|str|text))?$"),
    "new": re.compile(r"(new|replace(ment)?)(_?(string|str|text))?$"),
    "command": re.compile(r"(cmd|commands?|script)$"),
}
"""What the parameters of such tools are called, in lower case."""


class Call(NamedTuple):
    """A call that is to be made."""

    name: str
    arguments: dict[str, object]


def find(offers: Mapping[str, Offer], role: str) -> Offer | None:
    """The offered tool of a role."""
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()): offer for name, offer in offers.items()}
    for name in NAMES[role]:
        if name in plain and _suits(plain[name], role):
            return plain[name]
    return None


def _suits(offer: Offer, role: str) -> bool:
    """Whether the tool has the parameters of its role: `editor` edits only if it takes the old text."""
    wanted = {"write": ("path", "content"), "edit": ("path", "old", "new"), "read": ("path",), "shell": ("command",)}
    return all(_field(offer, field) is not None for field in wanted[role])


def _field(offer: Offer, field: str) -> str | None:
    return next((name for name in offer.parameters if FIELDS[field].match(name.lower())), None)


def play(offers: Mapping[str, Offer], role: str, values: Mapping[str, str]) -> Call | None:
    """A call that does what the role says; through the shell where no tool of its own is offered."""
    offer = find(offers, role)
    if offer is not None:
        return Call(offer.name, filled(offer, values))
    shell = find(offers, "shell")
    if role == "shell" or shell is None:
        return None
    return Call(shell.name, filled(shell, {"command": command(role, values)}))


def command(role: str, values: Mapping[str, str]) -> str:
    """The role as a shell command."""
    path = shlex.quote(values.get("path", "notes.txt"))
    match role:
        case "write":
            return f"printf %s {shlex.quote(values.get('content', ''))} > {path}"
        case "edit":
            old, new = (re.sub(r"([\\/&.*\[\]^$])", r"\\\1", values.get(key, "")) for key in ("old", "new"))
            return f"sed -i {shlex.quote(f's/{old}/{new}/')} {path}"
        case _:
            return f"cat {path}"


def filled(offer: Offer, values: Mapping[str, str]) -> dict[str, object]:
    """The arguments: values under the tool's own names, and something harmless for other required parameters."""
    named = {_field(offer, key): value for key, value in values.items() if key in FIELDS}
    arguments: dict[str, object] = {}
    for name, parameter in offer.parameters.items():
        if name in named:
            arguments[name] = _typed(name, parameter, named[name])
        elif parameter.is_required:
            arguments[name] = _harmless(parameter)
    return arguments


def _typed(name: str, parameter: Parameter, value: str) -> object:
    """A value as a list or an object where the parameter is one: `files: {path: string}[]`, `commands: string[]`."""
    kind = parameter.type
    if parameter.is_string:
        return value
    if "path" in kind:
        return [{"path": value}]
    if kind in ("any", "object", "unknown"):
        return value
    return ["bash", "-lc", value] if name == "command" else [value]


def _harmless(parameter: Parameter) -> object:
    kind = parameter.type.strip()
    choice = re.match(r"""["']([^"']*)["']""", kind)
    if choice is not None:
        return choice[1]
    if parameter.is_string:
        return "simulated"
    if kind.startswith(("number", "integer", "int")):
        return 1
    if kind.startswith("bool"):
        return False
    return [] if kind.startswith("array") or kind.endswith("[]") else {}
