"""The model list as Anthropic's clients want it."""

from typing import Any

import msgspec
import pytest

from qwen_proxy.chat.models import PLAIN, Mode, Model, Variant
from qwen_proxy.ground.errors import InvalidRequest
from qwen_proxy.protocols.anthropic_models import AnthropicModels
from qwen_proxy.protocols.base import ListedModel

PLUS = Model(
    id="qwen3.7-plus", display_name="Qwen3.7-Plus", created_at=1_700_000_000, context_tokens=1000, output_tokens=10
)


def listed(id: str, variant: Variant = PLAIN, model: Model = PLUS, backend: str = "web") -> ListedModel:
    return ListedModel(id=id, name=id, variant=variant, model=model, backend=backend)


FIVE = [listed(f"m{number}") for number in range(5)]


def page(**query: str) -> tuple[list[str], bool]:
    body: dict[str, Any] = msgspec.json.decode(AnthropicModels().all(FIVE, query))
    ids = [model["id"] for model in body["data"]]
    assert (body["first_id"], body["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    return ids, body["has_more"]


def test_one_model_has_all_that_the_sdk_requires():
    assert msgspec.json.decode(AnthropicModels().one(listed("qwen3.7-plus"))) == {
        "type": "model",
        "id": "qwen3.7-plus",
        "display_name": "Qwen3.7-Plus",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
        "max_input_tokens": 1000,
        "max_tokens": 10,
    }


def test_a_model_for_pictures_has_no_sizes_and_one_of_no_known_age_is_of_the_epoch():
    picture = listed("x-image", Variant(mode=Mode.IMAGE), Model(id="x", display_name="X", context_tokens=5))
    told = msgspec.json.decode(AnthropicModels().one(picture))
    assert (told["created_at"], told["max_input_tokens"]) == ("1970-01-01T00:00:00Z", None)
    assert told["display_name"] == "X-image"


def test_a_route_is_called_as_it_is():
    assert msgspec.json.decode(AnthropicModels().one(listed("best", backend="")))["display_name"] == "best"


def test_without_a_limit_all_are_listed():
    assert page() == (["m0", "m1", "m2", "m3", "m4"], False)


def test_pages_forward():
    assert page(limit="2") == (["m0", "m1"], True)
    assert page(limit="2", after_id="m1") == (["m2", "m3"], True)
    assert page(limit="2", after_id="m3") == (["m4"], False)
    assert page(limit="2", after_id="m4") == ([], False)
    assert page(limit="3", after_id="m0", before_id="m3") == (["m1", "m2"], False)


def test_pages_backward():
    assert page(limit="2", before_id="m4") == (["m2", "m3"], True)
    assert page(limit="2", before_id="m2") == (["m0", "m1"], False)
    assert page(before_id="m0") == ([], False)


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "ten"}, {"limit": "1001"}, {"after_id": "x"}, {"before_id": "x"}]
)
def test_a_wrong_page_is_refused_by_its_parameter(query: dict[str, str]):
    with pytest.raises(InvalidRequest) as refused:
        AnthropicModels().all(FIVE, query)
    assert refused.value.param == next(iter(query))
