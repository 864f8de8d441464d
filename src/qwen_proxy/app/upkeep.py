"""What one process does for all now and then: forget what has expired or is old enough."""

import logging
from collections.abc import Callable
from typing import Final

from qwen_proxy.admin.audit import TOPIC as AUDIT
from qwen_proxy.config.runtime import TOPIC as SETTINGS_HISTORY
from qwen_proxy.config.settings import Settings
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import DAY_SECONDS, Store

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 60.0
SWEEPS_TO_A_PRUNING: Final = 60


async def keep_up(store: Store, is_keeper: Callable[[], bool], settings: Callable[[], Settings], clock: Clock) -> None:
    """Until cancelled. Only the keeper does anything; the store's not answering is no reason to stop."""
    sweeps = 0
    while True:
        await clock.sleep(SWEEP_SECONDS)
        if not is_keeper():
            continue
        try:
            await store.sweep()
            if sweeps % SWEEPS_TO_A_PRUNING == 0:
                await prune(store, settings(), clock.now())
            sweeps += 1
        except StoreUnavailable as error:
            log.warning("upkeep put off", extra={"reason": str(error)})


async def prune(store: Store, settings: Settings, now: float) -> None:
    """Forget what is older than the settings keep. Raises StoreUnavailable."""
    await store.prune_usage(now - settings.usage_hourly_days * DAY_SECONDS)
    await store.prune_usage(now - settings.usage_daily_days * DAY_SECONDS, by_day=True)
    for topic in (AUDIT, SETTINGS_HISTORY):
        await store.prune_log(topic, now - settings.audit_days * DAY_SECONDS)
