import re
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.core import TyperCommand, TyperGroup

from qwen_proxy.cli.program import cli
from qwen_proxy.operations.advice import Trouble

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/command-line.md").read_text()
HEADINGS = re.findall(r"^##+ (.*)$", TEXT, re.MULTILINE)


def commands(group: TyperGroup, path: str = "") -> Iterator[tuple[str, TyperCommand]]:
    """Every command that a person may type, by its whole name, such as `accounts check`."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{path}{name} ")
        elif isinstance(command, TyperCommand) and not command.hidden:
            yield f"{path}{name}", command


COMMANDS = dict(commands(typer.main.get_group(cli)))


def test_every_command_is_described():
    described = [
        re.match("[a-z][a-z-]*(?: [a-z]+)*", name) for heading in HEADINGS for name in re.findall("`(.*?)`", heading)
    ]
    assert sorted(name[0] for name in described if name) == sorted(COMMANDS)


def test_every_option_is_described():
    options = [option for command in COMMANDS.values() for option in command.params]
    names = [[name for name in (*option.opts, *option.secondary_opts) if name.startswith("--")] for option in options]
    assert ["--json"] in names and ["--chat", "--no-chat"] in names
    assert [both for both in names if both and not any(name in TEXT for name in both)] == []


def test_every_trouble_is_described():
    assert [trouble.value for trouble in Trouble if f"`{trouble.value}`" not in TEXT] == []
