"""Time and identifiers, as the whole program gets them."""

from msgspec import Struct

from qwen_proxy.runtime.clock import Clock, SystemClock
from qwen_proxy.runtime.ids import Ids, SystemIds


class Machine(Struct, frozen=True):
    """Time, identifiers, and nothing else: what tests replace."""

    clock: Clock = SystemClock()
    ids: Ids = SystemIds()
