"""Where a name leads, over the lists of several backends."""

from collections import Counter

import pytest

from qwen_proxy.chat.models import PLAIN, Mode, Model, ModelName, Variant
from qwen_proxy.config.routes import Destination, read_rules
from qwen_proxy.gateway.model_list import Catalogue
from qwen_proxy.gateway.routing import Directory, Found, Listed, Naming, Route, Target, ordered, share_of
from qwen_proxy.ground.errors import ModelNotFound

PLUS = Model(id="qwen3.7-plus", display_name="Qwen3.7-Plus", thinks=True, searches=True)
MAX = Model(id="qwen3.8-max", display_name="Qwen3.8-Max", thinks=True)
FLASH = Model(id="qwen3.6-flash", display_name="Qwen3.6-Flash")
IMAGE = Model(id="qwen-image", display_name="Qwen-Image")
THINKING = Variant(thinking=True)


def model(id: str) -> Model:
    return Model(id=id, display_name=id)


WEB = Listed(backend="web", catalogue=Catalogue([PLUS, MAX, FLASH, IMAGE]), has_variants=True)
STUDIO = Listed(backend="studio", catalogue=Catalogue([model("qwen3.7-plus"), model("qwen3-thinking")]))
ROUTER = Listed(backend="open", catalogue=Catalogue([model("qwen/qwen3"), model("qwen3.7-plus")]), prefix="or/")
AWAY = Listed(backend="away", catalogue=None)
ALL = (WEB, STUDIO, ROUTER, AWAY)


def directory(routes: str = "", *, others: str | None = "", **aliases: str) -> Directory:
    pairs = tuple((name.replace("_", "-") + "*", target) for name, target in aliases.items())
    return Directory(ALL, Naming(rules=read_rules(routes), aliases=pairs, others=others))


def led(route: Route) -> list[str]:
    return [f"{each.backend}:{each.name.base}" for each in route.targets]


@pytest.mark.parametrize(
    ("asked", "base", "variant"),
    [
        ("QWEN3.8-max", "qwen3.8-max", PLAIN),
        (" Qwen3.8-Max ", "qwen3.8-max", PLAIN),
        ("Qwen3.8-Max-Thinking", "qwen3.8-max", THINKING),
        ("qwen3.8-max-thinking-search", "qwen3.8-max", Variant(thinking=True, search=True)),
        ("qwen3.8-max-image", "qwen3.8-max", Variant(mode=Mode.IMAGE)),
        ("qwen-image", "qwen-image", PLAIN),
        ("qwen-image-image", "qwen-image", Variant(mode=Mode.IMAGE)),
        ("qwen3-thinking", "qwen3-thinking", PLAIN),
        ("qwen3-thinking-thinking", "qwen3-thinking", THINKING),
    ],
)
def test_a_spelling_is_found(asked: str, base: str, variant: Variant) -> None:
    names = directory()
    for _ in range(2):  # the second answer comes from what was kept
        route = names.find(asked)
        assert (route.found, route.name, route.targets[0].name) == (Found.MODEL, base, ModelName(base, variant))


@pytest.mark.parametrize(
    ("asked", "found", "targets"),
    [
        ("", Found.DEFAULT, ["web:qwen3.7-plus", "studio:qwen3.7-plus"]),
        ("qwen3.7-plus", Found.MODEL, ["web:qwen3.7-plus", "studio:qwen3.7-plus"]),
        ("qwen3.7-plus-search", Found.MODEL, ["web:qwen3.7-plus", "studio:qwen3.7-plus"]),
        ("studio/Qwen3.7-plus", Found.QUALIFIED, ["studio:qwen3.7-plus"]),
        ("web/qwen3.7-plus-thinking", Found.QUALIFIED, ["web:qwen3.7-plus"]),
        ("or/qwen3.7-plus", Found.MODEL, ["open:qwen3.7-plus"]),
        ("OR/qwen/qwen3", Found.MODEL, ["open:qwen/qwen3"]),
        ("open/qwen/qwen3", Found.QUALIFIED, ["open:qwen/qwen3"]),
        ("gpt-5", Found.OTHER, ["web:qwen3.7-plus", "studio:qwen3.7-plus"]),
        ("claude-haiku-4-5", Found.OTHER, ["web:qwen3.6-flash"]),
        ("gemini-3-pro", Found.OTHER, ["web:qwen3.7-plus", "studio:qwen3.7-plus"]),
        ("gemini-2.5-flash-lite", Found.OTHER, ["web:qwen3.6-flash"]),
        ("o4-mini", Found.OTHER, ["web:qwen3.6-flash"]),
    ],
)
def test_a_name_leads_to_every_backend_that_has_it(asked: str, found: Found, targets: list[str]) -> None:
    route = directory().find(asked)
    assert (route.found, led(route)) == (found, targets)
    assert route.is_known == (found is not Found.OTHER)


@pytest.mark.parametrize("asked", ["qwen/qwen3", "away/qwen3.7-plus", "studio/qwen3.8-max", "qwen9-thinking"])
def test_what_nobody_has_is_refused(asked: str) -> None:
    names = directory()
    assert not names.has(asked)
    with pytest.raises(ModelNotFound):
        names.find(asked)


def test_near_names_are_told_as_the_list_has_them() -> None:
    with pytest.raises(ModelNotFound) as caught:
        directory().find("qwen3.7-plu")
    assert caught.value.near[0] in ("qwen3.7-plus", "Qwen3.7-Plus")
    with pytest.raises(ModelNotFound) as caught:
        directory().find("or/qwen/qwen33")
    assert caught.value.near[0] == "or/qwen/qwen3"


def test_a_route_wins_over_a_model_and_takes_suffixes() -> None:
    names = directory("qwen3.7-plus=studio:qwen3.7-plus,web:Qwen3.8-Max;fast=web:qwen3.6-flash-thinking")
    assert led(names.find("Qwen3.7-plus")) == ["studio:qwen3.7-plus", "web:qwen3.8-max"]
    assert led(names.find("web/qwen3.7-plus")) == ["web:qwen3.7-plus"]
    route = names.find("fast")
    assert (route.name, route.found, route.via, route.targets[0].name) == (
        "fast",
        Found.ROUTE,
        "",
        ModelName("qwen3.6-flash", THINKING),
    )
    assert names.find("fast-search").targets[0].name.variant == Variant(search=True)


def test_a_whole_id_wins_over_a_route_with_a_suffix() -> None:
    names = directory("qwen3=web:qwen3.8-max")
    assert led(names.find("qwen3-thinking")) == ["studio:qwen3-thinking"]
    assert led(names.find("qwen3-search")) == ["web:qwen3.8-max"]


def test_a_real_name_wins_over_patterns_and_a_pattern_over_an_alias() -> None:
    names = directory("*-plus=web:qwen3.8-max;gpt-5*=web:gone,studio:qwen3.7-plus", gpt="qwen3.8-max", x="studio/qwen3")
    assert names.find("qwen3.7-plus").found is Found.MODEL
    route = names.find("GPT-5.2")
    assert (route.found, route.via, route.name, led(route)) == (
        Found.PATTERN,
        "gpt-5*",
        "studio/qwen3.7-plus",
        ["studio:qwen3.7-plus"],
    )
    assert names.find("gpt-4").via == "qwen3.8-max"
    assert names.find("gpt-4").found is Found.ALIAS


def test_an_alias_may_name_a_route_or_a_backends_model_and_one_that_leads_nowhere_is_no_name() -> None:
    names = directory("fast=web:qwen3.6-flash", a="fast", b="studio/qwen3.7-plus", gpt="gone")
    assert led(names.find("a1")) == ["web:qwen3.6-flash"]
    assert led(names.find("b1")) == ["studio:qwen3.7-plus"]
    assert not names.has("gpt-4")


def test_a_route_tells_what_is_missing() -> None:
    route = directory("r=web:no,gone:m,away:m").find("r")
    assert route.targets == ()
    assert [(each.backend, each.why) for each in route.missing] == [
        ("web", "it has no such model"),
        ("gone", "there is no such backend"),
        ("away", "its model list could not be fetched"),
    ]
    assert directory("r*=gone:m").find("rr").name == "r*"


def test_names_of_other_vendors_may_be_switched_off_or_given_one_meaning() -> None:
    assert not directory(others=None).has("claude-opus-5")
    assert led(directory(others="qwen3.8-max").find("claude-opus-5")) == ["web:qwen3.8-max"]
    assert not directory(others="gone").has("gpt-5")
    assert not directory().has("mistral-large")


def test_without_a_fast_model_the_default_stands_for_small_ones_too() -> None:
    names = Directory([STUDIO], Naming())
    assert led(names.find("claude-haiku")) == ["studio:qwen3.7-plus"]
    empty = Directory([AWAY], Naming())
    assert not empty.has("") and not empty.has("gpt-5") and not empty.has("claude-haiku")


def test_the_list_has_each_id_once_and_the_routes() -> None:
    entries = directory(
        "fast=web:qwen3.6-flash;qwen3.7-plus=web:qwen3.8-max;gone=gone:m;x*=web:qwen3.6-flash"
    ).entries()
    assert [entry.id for entry in entries] == [
        "qwen3.7-plus",
        "qwen3.8-max",
        "qwen3.6-flash",
        "qwen-image",
        "studio/qwen3.7-plus",
        "qwen3-thinking",
        "or/qwen/qwen3",
        "or/qwen3.7-plus",
        "fast",
    ]
    assert [entry.has_variants for entry in entries] == [True] * 4 + [False] * 5
    assert entries[4].display_name == "studio/qwen3.7-plus"
    assert entries[-1].backend == ""


@pytest.mark.parametrize(
    ("asked", "id", "display_name", "backend"),
    [
        ("QWEN3.8-max-thinking", "qwen3.8-max", "Qwen3.8-Max", "web"),
        ("studio/qwen3.7-plus", "studio/qwen3.7-plus", "studio/qwen3.7-plus", "studio"),
        ("or/qwen3.7-plus", "or/qwen3.7-plus", "or/qwen3.7-plus", "open"),
        ("gpt-5", "qwen3.7-plus", "Qwen3.7-Plus", "web"),
        ("Fast", "fast", "fast", ""),
    ],
)
def test_what_was_found_is_told_as_the_list_has_it(asked: str, id: str, display_name: str, backend: str) -> None:
    entry = directory("fast=web:qwen3.6-flash").find(asked).entry()
    assert (entry.id, entry.display_name, entry.backend) == (id, display_name, backend)


def test_why_a_target_is_missing_is_told() -> None:
    names = directory()
    told = [names.why_missing(Destination(backend, "Qwen3.7-Plus")) for backend in ("web", "gone", "away")]
    assert told == ["", "there is no such backend", "its model list could not be fetched"]


def test_a_key_may_know_a_model_by_any_of_its_names() -> None:
    target = directory().find("or/qwen3.7-plus-thinking").targets[0]
    assert target.names() == (
        "or/qwen3.7-plus-thinking",
        "qwen3.7-plus-thinking",
        "qwen3.7-plus",
        "or/qwen3.7-plus",
        "open/qwen3.7-plus-thinking",
        "open/qwen3.7-plus",
    )
    entry = directory("fast=web:qwen3.6-flash").entries()[-1]
    assert entry.names(PLAIN) == ("fast", "qwen3.6-flash", "Qwen3.6-Flash")
    assert "studio/qwen3.7-plus-search" in directory().entries()[4].names(Variant(search=True))


def test_what_is_kept_of_spellings_is_bounded() -> None:
    names = directory(x="qwen3.8-max")
    for number in range(5000):
        assert led(names.find(f"x{number}")) == ["web:qwen3.8-max"]


# --- the order


def weighted(*pairs: tuple[str, int | None]) -> list[Target]:
    return [
        Target(backend=backend, name=ModelName("m"), model=model("m"), public="m", weight=weight)
        for backend, weight in pairs
    ]


def test_without_weights_the_order_stays() -> None:
    targets = weighted(("b", None), ("a", None))
    assert ordered(targets, lambda place: share_of("s", place)) == tuple(targets)


def test_each_target_is_first_as_often_as_its_weight_says() -> None:
    targets = weighted(("a", 6), ("b", 3), ("c", 1))
    first = Counter(
        ordered(targets, lambda place, seed=seed: share_of(str(seed), place))[0].backend for seed in range(5000)
    )
    assert 2850 < first["a"] < 3150 and 1360 < first["b"] < 1640 and 400 < first["c"] < 600


def test_a_conversation_keeps_to_its_target_and_moves_only_where_that_is_gone() -> None:
    targets = weighted(("a", 1), ("b", 1), ("c", 1))
    for seed in range(200):
        order = [each.backend for each in ordered(targets, lambda place, seed=seed: share_of(str(seed), place))]
        left = [each for each in targets if each.backend != order[0]]
        assert [each.backend for each in ordered(left, lambda place, seed=seed: share_of(str(seed), place))] == order[
            1:
        ]


def test_shares_are_above_nothing_and_up_to_one() -> None:
    assert all(0 < share_of(str(seed), "x\ud800") <= 1 for seed in range(100))
