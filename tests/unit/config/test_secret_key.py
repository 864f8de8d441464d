import stat
from pathlib import Path

import pytest

from qwen_proxy.config.secret_key import load_secret
from qwen_proxy.config.settings import WrongSetting, load
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.ids import SystemIds


def test_the_secret_is_generated_once_for_the_owner_only(tmp_path: Path) -> None:
    settings = load({"DATA_DIR": str(tmp_path / "data")}, None)
    first, again = load_secret(settings, SystemIds()), load_secret(settings, SystemIds())
    assert (first.created, again.created) == (True, False)
    assert first.secret == again.secret
    assert len(first.secret.reveal()) == 64
    path = tmp_path / "data" / "secret.key"
    assert first.file == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_variable_wins_and_nothing_is_written(tmp_path: Path) -> None:
    settings = load({"DATA_DIR": str(tmp_path / "data"), "SECRET_KEY": "sixteen letters."}, None)
    loaded = load_secret(settings, SystemIds())
    assert (loaded.secret, loaded.file, loaded.created) == (Secret("sixteen letters."), None, False)
    assert not (tmp_path / "data").exists()


def test_a_short_secret_stops_the_start_and_is_not_shown() -> None:
    with pytest.raises(WrongSetting, match="at least 16 characters") as raised:
        load({"SECRET_KEY": "canary-canary15"}, None)
    assert raised.value.variable == "SECRET_KEY"
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "short", "two words that are long enough", "é" * 20])
def test_a_file_that_holds_no_secret_stops_the_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret.key").write_text(content)
    with pytest.raises(WrongSetting, match=r"secret\.key"):
        load_secret(load({"DATA_DIR": str(tmp_path)}, None), SystemIds())


def test_a_file_that_others_may_read_is_pointed_out(tmp_path: Path) -> None:
    settings = load({"DATA_DIR": str(tmp_path)}, None)
    load_secret(settings, SystemIds())
    (tmp_path / "secret.key").chmod(0o640)
    (warning,) = load_secret(settings, SystemIds()).warnings
    assert "chmod 600" in warning
