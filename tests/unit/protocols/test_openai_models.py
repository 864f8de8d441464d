"""The model list as OpenAI's clients want it."""

import msgspec

from qwen_proxy.chat.models import PLAIN, Mode, Model, Variant
from qwen_proxy.ground.errors import ModelNotFound
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols.base import ListedModel
from qwen_proxy.protocols.openai_models import OpenAIModels

MODEL = Model(id="x", display_name="X", created_at=5, context_tokens=1000, output_tokens=10)


def listed(variant: Variant = PLAIN) -> ListedModel:
    return ListedModel(id="X", name="x", variant=variant, model=MODEL, backend="web")


def test_a_list_holds_what_is_told_of_one_model():
    one = msgspec.json.decode(OpenAIModels().one(listed()))
    assert msgspec.json.decode(OpenAIModels().all([listed()], {})) == {"object": "list", "data": [one]}
    assert (one["id"], one["name"], one["created"], one["context_length"]) == ("X", "x", 5, 1000)


def test_a_model_for_pictures_has_no_sizes():
    one = msgspec.json.decode(OpenAIModels().one(listed(Variant(mode=Mode.IMAGE))))
    assert (one["context_length"], one["max_output_tokens"]) == (None, None)


def test_its_errors_and_limits_are_openais():
    reply = OpenAIModels().error(ModelNotFound("y"), "req_1")
    assert (reply.status, msgspec.json.decode(reply.body)["error"]["code"]) == (404, "model_not_found")
    assert OpenAIModels().limit_headers(LimitFacts(at=0.0)) == ()
