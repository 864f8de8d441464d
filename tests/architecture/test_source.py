"""What holds over the whole source, whoever changes it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_proxy.config.variables import VARIABLES
from qwen_proxy.ground.errors import InternalError, ProxyError
from qwen_proxy.protocols.openai_errors import INTERNAL, terms_of
from tests.architecture.coverage_bars import Measured, Report, Summary, pure_modules, shortcomings
from tests.conformance.errors import EXAMPLES

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
BANNED_CALLS = {"print", "eval", "exec", "compile", "breakpoint", "__import__"}
BANNED_MODULES = {"pickle", "marshal", "shelve", "yaml", "requests", "httpx"}


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_no_source_prints_evaluates_text_or_loads_objects(path: Path) -> None:
    tree = ast.parse(path.read_text())
    allowed = {"print"} if path.name == "__main__.py" else set[str]()
    assert not (BANNED_CALLS - allowed) & set(calls(tree))
    assert not BANNED_MODULES & {name.partition(".")[0] for name in imported(tree)}
    assert ast.get_docstring(tree), "the module does not say what it is for"


@pytest.mark.parametrize("page", ["docs/configuration.md", ".env.example"])
def test_every_setting_is_documented(page: str) -> None:
    text = (ROOT / page).read_text()
    assert [variable.name for variable in VARIABLES if not re.search(rf"\b{variable.name}\b", text)] == []


def test_every_error_but_a_bug_of_ours_has_words_of_its_own_for_clients() -> None:
    wordless = {type(error) for error in EXAMPLES if terms_of(error) is INTERNAL}
    assert wordless == {ProxyError, InternalError}


def test_the_coverage_bars_name_modules_that_exist_and_see_what_is_missing() -> None:
    modules = pure_modules()
    assert len(modules) > 25
    whole = Measured(Summary(100.0), [], [])
    assert shortcomings(Report({str(module): whole for module in modules}), modules) == []
    files = {str(module): whole for module in modules[2:]} | {str(modules[0]): Measured(Summary(98.0), [7], [(3, -1)])}
    assert shortcomings(Report(files), modules) == [
        f"{modules[0]}: 98.0 %, missing 7, 3->exit",
        f"{modules[1]}: never imported",
    ]
