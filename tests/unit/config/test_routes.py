"""MODEL_ROUTES as it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.config.routes import Destination, Rule, WrongRoute, make_rule, read_rules, rules_text

FAST = Rule("fast", (Destination("web", "qwen3.6-flash"), Destination("studio", "qwen-flash")))
BEST = Rule("best", (Destination("web", "qwen3.8-max", 3), Destination("local", "llama3:8b", 1)))


@pytest.mark.parametrize(
    "text",
    [
        "fast=web:qwen3.6-flash,studio:qwen-flash;best=web:qwen3.8-max*3,local:llama3:8b*1",
        " fast = web:qwen3.6-flash , studio:qwen-flash \n best=web:qwen3.8-max*3,local:llama3:8b*1;",
        '{"fast": ["web:qwen3.6-flash", "studio:qwen-flash"], "best": ["web:qwen3.8-max*3", "local:llama3:8b*1"]}',
    ],
)
def test_both_forms_mean_the_same(text: str) -> None:
    assert read_rules(text) == (FAST, BEST)
    assert (FAST.is_weighted, BEST.is_weighted) == (False, True)


def test_nothing_is_no_route() -> None:
    assert read_rules("") == read_rules(" ; ") == ()
    assert rules_text(()) == ""


def test_a_pattern_is_told_from_a_name() -> None:
    assert [make_rule(name, ["web:m"]).is_pattern for name in ("gpt-*", "o?", "gpt")] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fast", "'fast' has no '='"),
        ("=web:m", "a name of 1 to 200"),
        (f"{'x' * 201}=web:m", "a name of 1 to 200"),
        ("fast=", "'fast': the target '' is not of the form backend:model"),
        ("fast=qwen", "'fast': the target 'qwen' is not of the form"),
        ("fast=we b:qwen", "the target 'we b:qwen'"),
        ("fast=web: ", "'fast': the target 'web:'"),
        ("fast=web:m*0", "the weight of 'web:m*0' is not from 1"),
        ("fast=web:m*9999999", "is not from 1 to 1000000"),
        ("fast=web:a*1,web:b", "a weight for 1 of its 2 targets"),
        ("fast=web:a;FAST=web:b", "two routes 'FAST'"),
        ("fast=" + ",".join(["web:m"] * 51), "has 51 targets; it takes 1 to 50"),
        (";".join(f"r{number}=web:m" for number in range(501)), "more than 500 routes"),
        ('{"fast": []}', "has 0 targets"),
        ('{"fast": "web:m"}', "no JSON object of lists"),
        ("{", "no JSON object"),
    ],
)
def test_what_is_wrong_is_named(text: str, told: str) -> None:
    with pytest.raises(WrongRoute) as caught:
        read_rules(text)
    assert told in str(caught.value)


NAMES = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)
MODELS = st.from_regex(r"[a-z][a-z0-9./:-]{0,20}", fullmatch=True)


@given(
    st.dictionaries(
        NAMES, st.lists(st.tuples(st.sampled_from(["web", "a.b-c_d"]), MODELS), min_size=1, max_size=3), max_size=4
    ),
    st.booleans(),
)
def test_what_is_written_is_read_again(routes: dict[str, list[tuple[str, str]]], is_weighted: bool) -> None:
    folded = {name.casefold(): name for name in routes}
    rules = tuple(
        Rule(
            name,
            tuple(Destination(backend, model, 7 if is_weighted else None) for backend, model in routes[name]),
        )
        for name in folded.values()
    )
    assert read_rules(rules_text(rules)) == rules
