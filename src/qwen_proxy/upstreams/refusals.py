"""What several upstreams refuse before they are asked. Pure."""

from qwen_proxy.chat.request import Sampling
from qwen_proxy.ground.errors import UnsupportedParameter


def refuse_log_probabilities(sampling: Sampling) -> None:
    """For an upstream that has none: none are made up. Raises UnsupportedParameter."""
    for name, is_wanted in (("logprobs", sampling.logprobs), ("top_logprobs", sampling.top_logprobs)):
        if is_wanted:
            param = sampling.logprobs_field or name
            raise UnsupportedParameter(f"{param}: this upstream gives no log probabilities; leave it out", param=param)
