"""Log probabilities in the shapes of the protocols that have their own."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw, to_builtins

from qwen_proxy.protocols.gemini_logprobs import LogprobsTeller
from qwen_proxy.protocols.logprobs import tokens_of
from qwen_proxy.protocols.openai_completions_logprobs import LogprobsPayload
from qwen_proxy.protocols.openai_responses_output import logprobs_told


def raw(*tokens: dict[str, Any]) -> Raw:
    return Raw(msgspec.json.encode(tokens))


GOOD: dict[str, Any] = {
    "token": "Good",
    "logprob": -0.5,
    "bytes": [71, 111, 111, 100],
    "top_logprobs": [{"token": "Good", "logprob": -0.5, "bytes": None}, {"token": "Bad", "logprob": -2}],
}
DAY: dict[str, Any] = {"token": " day", "logprob": -1.5, "bytes": None, "top_logprobs": []}
HALVES = ({"token": "\ufffd", "logprob": -1, "bytes": [0xC3]}, {"token": "\ufffd", "logprob": -2, "bytes": [0xA9]})


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        Raw(b"[]"),
        Raw(b"{}"),
        raw({"token": "a"}),
        raw({"token": "a", "logprob": None}),
        raw({"token": "a", "logprob": -1, "bytes": [256]}),
        raw({"token": "a", "logprob": -1, "top_logprobs": [{}]}),
    ],
)
def test_what_is_of_no_known_shape_tells_nothing(logprobs: Raw | None) -> None:
    assert tokens_of(logprobs) == []
    assert LogprobsTeller().result(logprobs) == {}
    if logprobs is not None:
        assert bytes(logprobs_told(logprobs)) == b"[]"


def test_responses_tell_each_token_with_its_bytes() -> None:
    assert msgspec.json.decode(logprobs_told(raw(GOOD, DAY))) == [
        {
            "token": "Good",
            "bytes": [71, 111, 111, 100],
            "logprob": -0.5,
            "top_logprobs": [
                {"token": "Good", "bytes": [71, 111, 111, 100], "logprob": -0.5},
                {"token": "Bad", "bytes": [66, 97, 100], "logprob": -2.0},
            ],
        },
        {"token": " day", "bytes": [32, 100, 97, 121], "logprob": -1.5, "top_logprobs": []},
    ]


def test_completions_tell_lists_and_the_place_of_each_token() -> None:
    told = LogprobsPayload()
    told.add(raw(GOOD, DAY), 3)
    told.add(raw({"token": "\U0001f600", "logprob": -3}, {"token": "!", "logprob": -4}), 11)
    assert to_builtins(told) == {
        "tokens": ["Good", " day", "\U0001f600", "!"],
        "token_logprobs": [-0.5, -1.5, -3.0, -4.0],
        "top_logprobs": [{"Good": -0.5, "Bad": -2.0}, {" day": -1.5}, {"\U0001f600": -3.0}, {"!": -4.0}],
        "text_offset": [3, 7, 11, 12],
    }


def test_halves_of_a_character_are_spelt_by_their_bytes() -> None:
    told = LogprobsPayload()
    told.add(raw(*HALVES, {"token": "x", "logprob": -1, "top_logprobs": [*HALVES]}), 0)
    assert told.tokens == ["bytes:\\xc3", "bytes:\\xa9", "x"]
    assert told.text_offset == [0, 0, 1]
    assert told.top_logprobs[2] == {"x": -1, "bytes:\\xc3": -1, "bytes:\\xa9": -2}


def test_gemini_tells_the_chosen_ones_the_likeliest_ones_and_the_average_at_the_end() -> None:
    teller = LogprobsTeller()
    assert teller.average() == {}
    assert teller.result(raw(GOOD, DAY)) == {
        "logprobsResult": {
            "chosenCandidates": [
                {"token": "Good", "logProbability": -0.5},
                {"token": " day", "logProbability": -1.5},
            ],
            "logProbabilitySum": -2.0,
            "topCandidates": [
                {"candidates": [{"token": "Good", "logProbability": -0.5}, {"token": "Bad", "logProbability": -2.0}]},
                {"candidates": []},
            ],
        }
    }
    day = {"token": " day", "logProbability": -1.5}
    assert teller.result(raw(DAY)) == {"logprobsResult": {"chosenCandidates": [day], "logProbabilitySum": -1.5}}
    assert teller.average() == {"avgLogprobs": -3.5 / 3}
