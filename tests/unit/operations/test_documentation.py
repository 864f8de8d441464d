import re
from pathlib import Path

from qwen_proxy.operations.advice import Trouble

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/command-line.md").read_text()
SOURCE = (ROOT / "src/qwen_proxy/cli.py").read_text()


def test_every_command_is_described():
    commands = re.findall(r'@cli\.command\((?:"(\w+)")?\)\n(?:async )?def (\w+)', SOURCE)
    described = re.findall(r"^## `([a-z]+)", TEXT, re.MULTILINE)
    assert sorted([*(given or name for given, name in commands), "accounts"]) == sorted(described)


def test_every_option_that_has_a_name_of_its_own_is_described():
    names = set(re.findall(r'"(?:--[a-z-]+/)?(--[a-z-]+)"', SOURCE))
    assert names >= {"--json", "--no-chat", "--keep-text"}
    assert [name for name in sorted(names) if name not in TEXT] == []


def test_every_trouble_is_described():
    assert [trouble.value for trouble in Trouble if f"`{trouble.value}`" not in TEXT] == []
