from pathlib import Path

from qwen_proxy.app.commons import live_settings, open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.settings import Settings, Source, load
from qwen_proxy.operations.in_force import in_force
from qwen_proxy.operations.places import own_place


def settings_with(folder: Path, **environ: str) -> Settings:
    return load({"DATA_DIR": str(folder / "data"), **environ}, None)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def set_at_run_time(settings: Settings, **values: str) -> None:
    machine = Machine()
    async with open_commons(own_place(settings, machine.ids), machine) as commons:
        live = live_settings(settings, commons)
        await commons.watch.load()
        await live.change(values, by="key-1")


async def test_what_was_set_at_run_time_is_in_front(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, MAX_CHOICES="4")
    await set_at_run_time(settings, MAX_CHOICES="5")
    found = await in_force(settings, Machine())
    assert (found.settings.texts["MAX_CHOICES"], found.settings.sources["MAX_CHOICES"]) == ("5", Source.RUNTIME)
    assert found.warnings == ()


async def test_looking_makes_nothing(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    assert (await in_force(settings, Machine())).settings == settings
    assert names_in(tmp_path) == []
    nothing_kept = settings_with(tmp_path, DATA_SAVE_MODE="none")
    assert (await in_force(nothing_kept, Machine())).settings == nothing_kept


async def test_what_can_not_be_read_is_said_and_the_rest_shown(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, SECRET_KEY="the right secret of the test")
    await set_at_run_time(settings, MAX_CHOICES="5")
    other = settings_with(tmp_path, SECRET_KEY="another secret of the test")
    found = await in_force(other, Machine())
    assert found.settings == other
    (warning,) = found.warnings
    assert warning.startswith("what was set at run time can't be read: SECRET_KEY=") and "another" not in warning
