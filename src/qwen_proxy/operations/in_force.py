"""The settings that hold for a server that runs, or would: those of the start, and what was set at run time."""

from msgspec import Struct

from qwen_proxy.app.machine import Machine
from qwen_proxy.config.choices import SaveMode
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings, WrongSetting
from qwen_proxy.ground.errors import StoreUnavailable
from qwen_proxy.operations.offline import open_to_look
from qwen_proxy.state.watching import Watch


class InForce(Struct, frozen=True):
    """warnings: whole sentences for the operator."""

    settings: Settings
    warnings: tuple[str, ...]


async def in_force(settings: Settings, machine: Machine) -> InForce:
    """Where what is kept can't be read, the settings of the start, and a warning that says why."""
    if settings.save_mode is SaveMode.NONE:
        return InForce(settings, settings.warnings)
    try:
        async with open_to_look(settings, machine) as kept:
            watch = Watch(kept.store, machine.clock)
            live = LiveSettings(settings, kept.store, kept.vault, watch)
            await watch.load()
            return InForce(live.current, settings.warnings)
    except (WrongSetting, StoreUnavailable) as error:
        return InForce(settings, (*settings.warnings, f"what was set at run time can't be read: {error}"))
