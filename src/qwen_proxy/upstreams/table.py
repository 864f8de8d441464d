"""The protocols of servers that an operator may describe: what `protocol` in BACKENDS names, and who speaks it."""

from collections.abc import Mapping
from typing import Final, Protocol

from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.upstreams.base import ApiOptions, ServerUpstream
from qwen_proxy.upstreams.openai_compatible import OpenAICompatible
from qwen_proxy.upstreams.transport import Transport


class MakeUpstream(Protocol):
    def __call__(self, transport: Transport, options: ApiOptions, *, clock: Clock, ids: Ids) -> ServerUpstream: ...


UPSTREAMS: Final[Mapping[str, MakeUpstream]] = {
    "openai": OpenAICompatible,
}
