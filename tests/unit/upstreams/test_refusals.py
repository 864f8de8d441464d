"""What several upstreams refuse before they are asked."""

import pytest

from qwen_proxy.chat.request import Sampling
from qwen_proxy.ground.errors import UnsupportedParameter
from qwen_proxy.upstreams.refusals import refuse_log_probabilities


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (Sampling(logprobs=True), "logprobs"),
        (Sampling(top_logprobs=2), "top_logprobs"),
        (Sampling(logprobs=True, top_logprobs=2, logprobs_field="include"), "include"),
    ],
)
def test_log_probabilities_are_refused_by_name(sampling: Sampling, param: str) -> None:
    refuse_log_probabilities(Sampling())
    with pytest.raises(UnsupportedParameter) as refused:
        refuse_log_probabilities(sampling)
    assert refused.value.param == param
