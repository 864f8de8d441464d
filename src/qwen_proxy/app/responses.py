"""What is stored of `/v1/responses`, and who is at work on it."""

from qwen_proxy.accounts.pool import AccountPool
from qwen_proxy.api.background import BackgroundRuns
from qwen_proxy.api.chat import ChatRoutes
from qwen_proxy.api.own_jobs import OwnJobs
from qwen_proxy.api.response_keeper import ResponseKeeper
from qwen_proxy.api.responses import ResponsesRoutes
from qwen_proxy.api.stored_responses import StoredResponses
from qwen_proxy.app.commons import Commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.gateway.admission import Admission
from qwen_proxy.gateway.chat import ChatGateway
from qwen_proxy.serving.streaming import Heartbeats
from qwen_proxy.state.store import DAY_SECONDS


def responses_routes(
    live: LiveSettings,
    commons: Commons,
    pool: AccountPool,
    chat: ChatRoutes,
    gateway: ChatGateway,
    limits: Admission,
    heartbeats: Heartbeats,
    machine: Machine,
) -> ResponsesRoutes:
    kept = StoredResponses(commons.store, commons.vault, lambda: live.current.stored_responses_days * DAY_SECONDS)
    own = OwnJobs(commons.membership.id)
    runs = BackgroundRuns(
        kept, own, gateway, limits, commons.usage, commons.traces, commons.keys.get, clock=machine.clock
    )

    async def living() -> set[str]:
        return {row.id for row in await commons.store.processes()}

    keeper = ResponseKeeper(
        kept,
        own,
        runs.ask_again,
        living=living,
        is_keeper=lambda: pool.is_keeper,
        clock=machine.clock,
    )
    return ResponsesRoutes(
        chat, gateway, limits, heartbeats, kept, own, runs, keeper, clock=machine.clock, ids=machine.ids
    )
