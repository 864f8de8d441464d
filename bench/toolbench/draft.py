"""Calls on the way to a text."""

from dataclasses import dataclass

from bench.toolbench.kit import BY_NAME
from bench.toolbench.payloads import Chance
from qwen_proxy.simulator.forms import FOREIGN, Block, taught_block
from qwen_proxy.simulator.roles import Call
from qwen_proxy.simulator.taught import Taught

TAUGHT = "taught"
TAG_FORMS = ("coder", "function", "invoke", "cdata", "wrapped")


@dataclass(frozen=True)
class Draft:
    """Calls on the way to a text."""

    calls: tuple[Call, ...]
    form: str
    taught: Taught
    chance: Chance

    def blocks(self) -> list[Block]:
        return [self._block(call) for call in self.calls]

    def _block(self, call: Call) -> Block:
        if self.form in FOREIGN:
            return FOREIGN[self.form](call)
        return taught_block(call, self.taught, self.raw(call))

    def raw(self, call: Call) -> dict[str, bool]:
        tool = BY_NAME.get(call.name)
        return tool.raw() if tool is not None else {}
