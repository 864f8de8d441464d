import logging
from pathlib import Path

import pytest

from qwen_proxy.config.choices import LogLevel, ModelNames, SearchInfo, SimulatorUse
from qwen_proxy.config.settings import Settings, Source, WrongSetting, handed_on, load
from qwen_proxy.config.variables import NAMES, VARIABLES
from qwen_proxy.ground.secret import Secret


def given(**environ: str) -> Settings:
    return load(environ, None)


def refusal(**environ: str) -> WrongSetting:
    with pytest.raises(WrongSetting) as caught:
        load(environ, None)
    return caught.value


def test_defaults_listen_on_loopback_only():
    settings = given()
    assert (settings.host, settings.port) == ("127.0.0.1", 3000)
    assert set(settings.sources.values()) == {Source.DEFAULT}
    assert settings.warnings == ()


def test_defaults_are_those_of_the_protocol_page_and_the_issue():
    settings = given()
    assert settings.chat_base_url == "https://chat.qwen.ai"
    assert settings.cli_base_url == "https://portal.qwen.ai"
    assert (settings.chat_retry_count, settings.chat_retry_backoff_ms) == (1, 400)
    assert settings.models_cache_ttl_seconds == 3600
    assert settings.search_info is SearchInfo.TEXT
    assert settings.output_think
    assert not settings.legacy_reasoning_in_content
    assert settings.model_names is ModelNames.DISPLAY
    assert settings.max_memory_bytes == 1024**3
    assert settings.max_body_bytes == 8 * 1024**2
    assert settings.max_prompt_bytes == 122880
    assert settings.cleanup_minutes == 0
    assert (settings.idle_timeout_seconds, settings.header_commit_seconds) == (240, 15)
    assert (settings.max_log_file_bytes, settings.max_log_files) == (10 * 1024**2, 5)
    assert settings.log_level is LogLevel.INFO


def test_environment_wins_over_dotenv_and_dotenv_over_default(tmp_path: Path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("SERVICE_PORT=4000\nLISTEN_ADDRESS=localhost # as the original's README has it\n")
    settings = load({"SERVICE_PORT": "5000"}, dotenv)
    assert (settings.port, settings.host, settings.workers) == (5000, "localhost", 1)
    assert settings.sources["SERVICE_PORT"] is Source.ENVIRONMENT
    assert settings.sources["LISTEN_ADDRESS"] is Source.DOTENV
    assert settings.sources["PM2_INSTANCES"] is Source.DEFAULT


def test_empty_is_unset(tmp_path: Path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("SERVICE_PORT=4000\nREDIS_URL=\nPROXY_URL\n")
    settings = load({"SERVICE_PORT": "  ", "LISTEN_ADDRESS": ""}, dotenv)
    assert (settings.port, settings.host, settings.redis_url) == (4000, "127.0.0.1", None)


def test_dotenv_is_not_interpolated_and_may_have_a_byte_order_mark(tmp_path: Path):
    dotenv = tmp_path / ".env"
    dotenv.write_bytes("\ufeffACCOUNTS='a@x.example:pa${HOME}$$'\n".encode())
    assert load({}, dotenv).accounts[0].password == Secret("pa${HOME}$$")


def test_missing_dotenv_is_none(tmp_path: Path):
    assert load({}, tmp_path / ".env") == load({}, None)


def test_unreadable_dotenv_is_named(tmp_path: Path):
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"API_KEY=\xff\xfe\n")
    with pytest.raises(WrongSetting, match="UTF-8"):
        load({}, dotenv)


def test_the_same_input_gives_equal_settings():
    environ = {"ACCOUNTS": "a@x.example:pw", "API_KEY": "sk-abcdefgh", "SERVIC_PORT": "1"}
    assert load(environ, None) == load(environ, None)


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("SERVICE_PORT", "http", "a whole number from 0 to 65535"),
        ("SERVICE_PORT", "70000", "a whole number from 0 to 65535"),
        ("LISTEN_ADDRESS", "my host", "an address such as"),
        ("SEARCH_INFO_MODE", "tables", "one of table, text, none"),
        ("OUTPUT_THINK", "maybe", "true or false"),
        ("PM2_INSTANCES", "0", "or max"),
        ("PM2_INSTANCES", "many", "or max"),
        ("PM2_MAX_MEMORY", "lots", "300M"),
        ("MAX_BODY_BYTES", "0", "300M"),
        ("CHAT_RETRY_COUNT", "-1", "from 0 to 10"),
        ("QUEUE_SECONDS", "1e3", "a number from"),
        ("QWEN_CHAT_PROXY_URL", "chat.qwen.ai", "https://"),
        ("QWEN_CHAT_PROXY_URL", "https://chat.qwen.ai/?a=b", "a query"),
        ("QWEN_CHAT_PROXY_URL", "https://:80", "no host"),
        ("QWEN_CHAT_PROXY_URL", "https://host:notaport", "can't be read"),
        ("QWEN_CHAT_PROXY_URL", "https://höst", "not ASCII"),
        ("PROXY_URL", "socks4://127.0.0.1:1080", "socks5://"),
        ("CHAT_CLEANUP", "sometimes", "minutes"),
        ("MODEL_MAP", "gpt-4o", "JSON object"),
        ("MODEL_MAP", '{"gpt-4o": 3}', "JSON object"),
        ("CORS_ORIGINS", "chat.example", "origins"),
        ("CORS_ORIGINS", "https://chat.example/page", "origins"),
        ("CA_FILE", "/no/such/file.pem", "a file that exists"),
        ("MAX_LOG_FILE_SIZE", "0", "megabytes"),
        ("QWEN_USER_AGENT", "Mozilla\u00e9", "ASCII"),
        ("SIMULATOR", "on", "auto"),
        ("DATA_SAVE_MODE", "sqlite", "none, file, redis"),
        ("LOG_LEVEL", "LOUD", "DEBUG, INFO, WARN, ERROR"),
    ],
)
def test_wrong_value_names_variable_value_and_what_would_be_right(name: str, value: str, right: str):
    error = refusal(**{name: value})
    assert error.variable == name
    assert name in str(error) and repr(value) in str(error) and right in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", "sk-canary key"),
        ("ACCOUNTS", "a@x.example;canary"),
        ("ACCOUNTS", "a@x.example:canary|socks4://h:1"),
        ("REDIS_URL", "https://:canary@h"),
        ("REDIS_URL", "redis://:canary@"),
        ("REDIS_URL", "redis://:canary@["),
        ("REDIS_URL", "redis://:canary@h/name"),
        ("REDIS_URL", "rediss://:canary@h?ssl_cert_reqs=none"),
        ("REDIS_URL", "redis://:canary@h/#2"),
        ("REDIS_URL", "unix://:canary@/"),
        ("REDIS_URL", "unix://:canary@host/path"),
        ("QWEN_EXTRA_HEADERS", '{"cookie": canary}'),
        ("QWEN_EXTRA_HEADERS", '{"co okie": "canary"}'),
        ("PROXY_URL", "socks4://user:canary@h:1"),
    ],
)
def test_wrong_value_that_may_hold_a_secret_is_masked(name: str, value: str):
    error = refusal(**{name: value})
    assert "canary" not in str(error) and "canary" not in repr(error.__cause__)
    assert "***" in error.value


def test_accounts_follow_the_original_line_syntax():
    settings = given(ACCOUNTS="a@x.example:p:w ,B@x.example:pw|socks5://u:p@127.0.0.1:1080, ,\nc@x.example:q")
    first, second, third = settings.accounts
    assert (first.email, first.password, first.exit) == ("a@x.example", Secret("p:w"), "")
    assert (second.email, second.exit) == ("B@x.example", "socks5://u:p@127.0.0.1:1080")
    assert third.password == Secret("q")


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("a@x.example:pw,broken", 2),
        ("a@x.example:pw,:pw", 2),
        ("a@x.example:", 1),
        ("a@x.example:pw,b@x.example:pw,A@X.example:other", 3),
        ("a b@x.example:pw", 1),
        ("a@x.example:pw|ftp://h", 1),
    ],
)
def test_wrong_account_is_named_by_number_and_never_printed(text: str, entry: int):
    error = refusal(ACCOUNTS=text)
    assert f"entry {entry}" in str(error)
    assert "example" not in str(error)


def test_keys_are_secrets_in_order():
    settings = given(API_KEY=" sk-admin-one , sk-user-two,")
    assert settings.api_keys == (Secret("sk-admin-one"), Secret("sk-user-two"))
    assert "sk-admin" not in repr(settings)
    assert "copy of key 1" in str(refusal(API_KEY="sk-one-one,sk-one-one"))


def test_printing_settings_shows_no_secret():
    settings = given(
        API_KEY="canary-key",
        ACCOUNTS="a@x.example:canary|http://u:canary@h:1",
        PROXY_URL="http://u:canary@h:1",
        REDIS_URL="redis://:canary@h",
        QWEN_EXTRA_HEADERS='{"cookie": "canary"}',
    )
    assert "canary" not in repr(settings)
    assert "canary" not in repr(settings.accounts)
    assert settings.texts["PROXY_URL"] == "http://***@h:1"
    assert settings.texts["API_KEY"] == "***"
    assert settings.proxy_url == "http://u:canary@h:1"
    assert settings.extra_headers == (("cookie", "canary"),)


def test_model_map_keeps_its_order_in_both_forms():
    expected = (("gpt-*", "qwen3.7-plus"), ("*", "qwen3.8-max"))
    assert given(MODEL_MAP="gpt-*=qwen3.7-plus, *=qwen3.8-max").model_map == expected
    assert given(MODEL_MAP='{"gpt-*": "qwen3.7-plus", "*": "qwen3.8-max"}').model_map == expected


@pytest.mark.parametrize(("text", "size"), [("300M", 300 * 1024**2), ("1.5g", 1610612736), ("4096", 4096), ("0", 0)])
def test_memory_limit_is_read_like_pm2s(text: str, size: int):
    assert given(PM2_MAX_MEMORY=text).max_memory_bytes == size


@pytest.mark.parametrize(("text", "minutes"), [("delete", 0.0), ("Keep", None), ("2.5", 2.5)])
def test_cleanup(text: str, minutes: float | None):
    assert given(CHAT_CLEANUP=text).cleanup_minutes == minutes


def test_workers():
    assert [given(PM2_INSTANCES=text).workers for text in ("max", "4")] == [0, 4]


def test_base_url_keeps_its_path_and_loses_its_trailing_slash():
    assert given(QWEN_CHAT_PROXY_URL="http://127.0.0.1:8000/qwen/").chat_base_url == "http://127.0.0.1:8000/qwen"


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::", "::1", "proxy.example"])
def test_listen_addresses(host: str):
    assert given(LISTEN_ADDRESS=host).host == host


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://u:p%40w@h:7000/2",
        "rediss://:pw@[::1]:7000/",
        "unix:///run/redis.sock",
        "unix://u:p@/s?db=3",
    ],
)
def test_addresses_of_redis(url: str):
    assert given(REDIS_URL=url).redis_url == Secret(url)


def test_zero_retries_can_be_said():
    assert given(CHAT_RETRY_COUNT="0").chat_retry_count == 0


def test_origins_and_files(tmp_path: Path):
    pem = tmp_path / "ca.pem"
    pem.touch()
    settings = given(CORS_ORIGINS="https://a.example, *", CA_FILE=str(pem), REDIS_URL="rediss://h", LOG_LEVEL="warn")
    assert settings.cors_origins == ("https://a.example", "*")
    assert settings.ca_file == pem
    assert settings.redis_url == Secret("rediss://h")
    assert settings.log_level is LogLevel.WARN
    assert given(MAX_LOG_FILE_SIZE="0.5").max_log_file_bytes == 512 * 1024


def test_simulator_is_used_when_nothing_real_is_configured():
    assert given().uses_simulator
    assert not given(ACCOUNTS="a@x.example:pw").uses_simulator
    assert not given(QWEN_CHAT_PROXY_URL="http://127.0.0.1:8000").uses_simulator
    assert given(ACCOUNTS="a@x.example:pw", SIMULATOR="always").uses_simulator
    assert not given(SIMULATOR="never").uses_simulator
    assert given().simulator is SimulatorUse.AUTO


def test_misspelt_variables_are_pointed_out(tmp_path: Path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("ACCOUNT=a\nUNRELATED=1\n")
    warnings = load({"SERVICE_PROT": "1", "HOME": "/root", "PATH": "/bin"}, dotenv).warnings
    assert [warning.split()[0] for warning in warnings] == ["ACCOUNT", "SERVICE_PROT", "UNRELATED"]
    assert "did you mean ACCOUNTS?" in warnings[0]
    assert "did you mean SERVICE_PORT?" in warnings[1]


def test_every_variable_has_a_field_of_its_own_and_a_readable_default():
    fields = [variable.field for variable in VARIABLES]
    assert len(set(fields)) == len(fields) == len(NAMES)
    assert {*fields, "sources", "texts", "warnings"} == set(Settings.__struct_fields__)


def test_unparsable_dotenv_line_is_told_by_a_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    dotenv = tmp_path / ".env"
    dotenv.write_text("SERVICE_PORT=4000\n='broken\n")
    with caplog.at_level(logging.WARNING):
        assert load({}, dotenv).port == 4000
    assert "could not parse" in caplog.text


def test_what_is_handed_on_means_the_same_without_the_file(tmp_path: Path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("SERVICE_PORT=4000\nAPI_KEY='sk-$1'\nLOG_LEVEL=DEBUG\nOTHER=1\n")
    environ = {"LOG_LEVEL": "WARN", "SERVICE_PORT": " ", "PATH": "/bin"}
    handed = handed_on(environ, dotenv)
    assert load(handed, None).texts == load(environ, dotenv).texts
    assert handed == {"LOG_LEVEL": "WARN", "SERVICE_PORT": "4000", "API_KEY": "sk-$1", "PATH": "/bin"}
