"""A server that plays chat.qwen.ai on the wire, from a script or from directives in the text it gets.

It imports nothing of the rest of the program: it is a second reading of the same protocol page.
"""

from qwen_proxy.simulator.answers import interleave
from qwen_proxy.simulator.catalogue import default_models, plain
from qwen_proxy.simulator.records import Endpoint, SeenRequest, SimulatedChat, StoredMessage
from qwen_proxy.simulator.replies import Cut, Drop, Pause, Reply, Reset, SendHeaders, Stall, Step, stream
from qwen_proxy.simulator.scenario import Account, Fault, Portal, Scenario, challenge, overload, quota
from qwen_proxy.simulator.server import Simulator

__all__ = [
    "Account",
    "Cut",
    "Drop",
    "Endpoint",
    "Fault",
    "Pause",
    "Portal",
    "Reply",
    "Reset",
    "Scenario",
    "SeenRequest",
    "SendHeaders",
    "SimulatedChat",
    "Simulator",
    "Stall",
    "Step",
    "StoredMessage",
    "challenge",
    "default_models",
    "interleave",
    "overload",
    "plain",
    "quota",
    "stream",
]
