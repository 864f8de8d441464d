import stat
from pathlib import Path

import pytest

from qwen_proxy.config.credentials import SAMPLE_KEYS, is_loopback, load_keys
from qwen_proxy.config.settings import Settings, WrongSetting, load
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.ids import SystemIds


def settings_with(folder: Path, **environ: str) -> Settings:
    return load({"DATA_DIR": str(folder / "data"), **environ}, None)


def test_admin_key_is_generated_once_for_the_owner_only(tmp_path: Path):
    settings = settings_with(tmp_path)
    first = load_keys(settings, SystemIds())
    again = load_keys(settings, SystemIds())
    assert (first.created, again.created) == (True, False)
    assert first.admin == again.admin
    assert first.file is not None
    assert stat.S_IMODE(first.file.stat().st_mode) == 0o600
    key = first.admin.reveal()
    assert key.startswith("sk-") and len(key) == 51
    assert again.keys == (again.admin,)
    assert [path.name for path in first.file.parent.iterdir()] == ["admin.key"]


def test_key_file_that_leads_nowhere_stops_the_start(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.key").symlink_to(tmp_path / "gone")
    with pytest.raises(WrongSetting, match=r"admin\.key"):
        load_keys(settings_with(tmp_path), SystemIds())
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["admin.key"]


def test_another_process_that_was_first_wins(tmp_path: Path):
    settings = settings_with(tmp_path)

    class SlowIds(SystemIds):
        """The other process writes its key while this one makes its own."""

        def token(self, digits: int) -> str:
            (tmp_path / "data").mkdir()
            (tmp_path / "data" / "admin.key").write_text("sk-the-other-process\n")
            return super().token(digits)

    assert load_keys(settings, SlowIds()).admin == Secret("sk-the-other-process")


def test_open_file_mode_is_pointed_out(tmp_path: Path):
    settings = settings_with(tmp_path)
    path = load_keys(settings, SystemIds()).file
    assert path is not None
    path.chmod(0o644)
    (warning,) = load_keys(settings, SystemIds()).warnings
    assert "chmod 600" in warning


@pytest.mark.parametrize("content", [b"", b"short\n", b"two words here\n", b"\xff\xfe\xff\xfe\xff"])
def test_broken_key_file_stops_the_start(tmp_path: Path, content: bytes):
    settings = settings_with(tmp_path)
    path = load_keys(settings, SystemIds()).file
    assert path is not None
    path.write_bytes(content)
    with pytest.raises(WrongSetting, match="DATA_DIR"):
        load_keys(settings, SystemIds())


def test_folder_that_cannot_be_made_stops_the_start(tmp_path: Path):
    (tmp_path / "data").touch()
    with pytest.raises(WrongSetting, match="DATA_DIR"):
        load_keys(settings_with(tmp_path), SystemIds())


@pytest.mark.parametrize("key", [*sorted(SAMPLE_KEYS)[:5], "sk-your-api-key", "Admin", "short"])
def test_guessable_key_warns_on_loopback_and_stops_the_start_elsewhere(tmp_path: Path, key: str):
    loaded = load_keys(settings_with(tmp_path, API_KEY=f"sk-long-enough-key,{key}"), SystemIds())
    assert len(loaded.warnings) == 1 and "key 2" in loaded.warnings[0]
    assert loaded.file is None
    with pytest.raises(WrongSetting, match="API_KEY") as caught:
        load_keys(settings_with(tmp_path, API_KEY=f"sk-long-enough-key,{key}", LISTEN_ADDRESS="0.0.0.0"), SystemIds())
    assert f"'{key}'" not in str(caught.value)


def test_good_key_may_listen_anywhere(tmp_path: Path):
    loaded = load_keys(settings_with(tmp_path, API_KEY="sk-long-enough-key", LISTEN_ADDRESS="::"), SystemIds())
    assert loaded.warnings == ()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("LocalHost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("proxy.example", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool):
    assert is_loopback(host) is loopback
