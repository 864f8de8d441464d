from pathlib import Path

import pytest

from qwen_proxy.config.listing import dotenv, live_names, markdown
from qwen_proxy.config.settings import load
from qwen_proxy.config.variables import GROUPS, VARIABLES, Group

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.title)
def test_documentation_has_the_table_as_it_is(group: Group):
    assert f"## {group.title}\n\n{markdown(group)}" in (ROOT / "docs/configuration.md").read_text()


def test_documentation_lists_what_may_be_changed_at_run_time():
    assert f"\n\n{live_names()}\n" in (ROOT / "docs/configuration.md").read_text()


def test_example_file_is_as_it_is_and_changes_nothing():
    assert (ROOT / ".env.example").read_text() == dotenv()
    assert load({}, ROOT / ".env.example") == load({}, None)


def test_example_file_with_every_line_switched_on_means_the_defaults(tmp_path: Path):
    names = tuple(f"# {variable.name}=" for variable in VARIABLES)
    lines = [line[2:] if line.startswith(names) else line for line in dotenv().splitlines()]
    (tmp_path / ".env").write_text("\n".join(lines))
    settings = load({}, tmp_path / ".env")
    assert settings.texts == load({}, None).texts
    assert settings.warnings == ()
