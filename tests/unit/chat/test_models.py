"""Model names and what their suffixes ask for."""

import pytest

from qwen_proxy.chat.models import PLAIN, SUFFIXES, Mode, Model, Variant, split_suffix


def names(model: Model) -> list[str]:
    return [model.id + suffix for suffix, _ in model.variants()]


def test_a_model_is_listed_once_for_each_thing_it_can_do():
    able = Model(
        id="q",
        display_name="Q",
        thinks=True,
        searches=True,
        modes=frozenset(Mode),
    )
    assert names(able) == ["q", "q-thinking", "q-search", "q-thinking-search", "q-image", "q-video", "q-image-edit"]
    assert names(Model(id="q", display_name="Q")) == ["q"]
    assert names(Model(id="q", display_name="Q", thinks=True)) == ["q", "q-thinking"]
    assert names(Model(id="q", display_name="Q", searches=True)) == ["q", "q-search"]


def test_what_a_listed_suffix_means_is_what_it_is_read_as():
    able = Model(id="q", display_name="Q", thinks=True, searches=True, modes=frozenset(Mode))
    for suffix, variant in able.variants():
        assert split_suffix("q" + suffix) == ("q", variant)


def test_a_model_is_known_by_its_names_with_and_without_what_was_asked_for():
    model = Model(id="qwen3.7-plus", display_name="Qwen3.7-Plus")
    assert model.names(Variant(thinking=True)) == (
        "qwen3.7-plus-thinking",
        "Qwen3.7-Plus-thinking",
        "qwen3.7-plus",
        "Qwen3.7-Plus",
    )
    assert model.names(PLAIN) == ("qwen3.7-plus", "Qwen3.7-Plus")


@pytest.mark.parametrize(("suffix", "variant"), SUFFIXES)
def test_a_suffix_is_taken_off_in_any_case(suffix: str, variant: Variant):
    assert split_suffix(f"Qwen3.7-Plus{suffix.upper()}") == ("Qwen3.7-Plus", variant)


def test_one_suffix_is_taken_and_only_from_the_end():
    assert split_suffix("qwen3.7-plus") == ("qwen3.7-plus", PLAIN)
    assert split_suffix("q-search-thinking") == ("q-search", Variant(thinking=True))
    assert split_suffix("q-image-2") == ("q-image-2", PLAIN)


def test_a_suffix_alone_is_a_name():
    assert split_suffix("-thinking") == ("-thinking", PLAIN)
