"""Everything an operator decides before the start: read once from a mapping and a `.env` file, then frozen.

`variables.VARIABLES` lists every variable; this module holds what they become.
"""

import difflib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec
from dotenv import dotenv_values
from msgspec import Struct, structs

from qwen_proxy.config.backend_settings import Specs
from qwen_proxy.config.choices import (
    CacheMode,
    LogFormat,
    LogLevel,
    ModelNames,
    SaveMode,
    SearchInfo,
    SimulatorUse,
    Strategy,
    ToolForm,
)
from qwen_proxy.config.lines import AccountLine
from qwen_proxy.config.routes import Rule
from qwen_proxy.config.values import WrongValue
from qwen_proxy.config.variables import BY_NAME, NAMES, VARIABLES, Variable
from qwen_proxy.ground.redact import redacted
from qwen_proxy.ground.secret import MASK, Secret


class Source(StrEnum):
    """Where a value came from. RUNTIME: an admin has set it while the server ran."""

    RUNTIME = "runtime"
    ENVIRONMENT = "environment"
    DOTENV = ".env"
    DEFAULT = "default"


class WrongSetting(Exception):
    """A variable's value can't be used; the start stops. `value` is masked where it may hold a secret."""

    def __init__(self, variable: str, value: str, right: str) -> None:
        super().__init__(f"{variable}={value!r} can't be used: it should be {right}")
        self.variable = variable
        self.value = value
        self.right = right


class Settings(Struct, frozen=True, kw_only=True):
    """One field a variable; `variables.VARIABLES` tells what each means. Sizes are bytes.

    workers: 0 is one per processor. cleanup_minutes: 0 deletes an upstream chat at once after use, None keeps it.
    models_cache_ttl_seconds: 0 is for ever. other_model_names: None is off, empty chooses one. proxy_url: empty is
    none. web_version, user_agent, accept_language: empty leaves the adapter's own. sources, texts (as an operator may
    see them): by variable name. warnings: whole sentences for the operator.
    """

    host: str
    port: int
    api_keys: tuple[Secret, ...]
    cors_origins: tuple[str, ...]
    admin_hosts: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    wrong_keys_per_address: int
    models_open: bool
    max_body_bytes: int
    request_read_seconds: float
    request_deadline_seconds: float
    header_commit_seconds: float
    heartbeat_seconds: float

    accounts: tuple[AccountLine, ...]
    account_concurrency: int
    account_strategy: Strategy
    queue_seconds: float
    signin_spacing_seconds: float
    refresh_before_hours: float
    challenge_rest_seconds: float
    auto_refresh: bool
    auto_refresh_interval_seconds: int
    batch_login_concurrency: int

    key_rpm: int
    key_concurrency: int
    key_tpm: int
    key_tokens_per_day: int
    key_tokens_per_month: int
    key_api_tokens_per_day: int
    key_token_reserve: int

    workers: int
    max_memory_bytes: int
    drain_seconds: float
    shutdown_grace_seconds: float

    output_think: bool
    legacy_reasoning_in_content: bool
    search_info: SearchInfo
    strict_fields: bool
    max_choices: int
    max_prompt_bytes: int
    chat_retry_count: int
    chat_retry_backoff_ms: int
    ask_again_count: int
    max_tool_result_bytes: int
    tool_forms_off: tuple[ToolForm, ...]
    stream_structured_output: bool
    cleanup_minutes: float | None

    simple_model_map: bool
    model_names: ModelNames
    model_map: tuple[tuple[str, str], ...]
    model_routes: tuple[Rule, ...]
    other_model_names: str | None
    backend_order: tuple[str, ...]
    overflow_seconds: float
    models_cache_ttl_seconds: float

    chat_base_url: str
    cli_base_url: str
    qwen_code_enabled: bool
    qwen_code_models: tuple[str, ...]
    qwen_code_version: str
    proxy_url: str
    ca_file: Path | None
    connect_timeout_seconds: float
    headers_timeout_seconds: float
    idle_timeout_seconds: float
    web_version: str
    user_agent: str
    accept_language: str
    extra_headers: tuple[tuple[str, str], ...]
    send_bearer: bool
    simulator: SimulatorUse

    backends: Specs
    model_studio: Specs
    model_studio_cn: Specs
    coding_plan: Specs
    coding_plan_cn: Specs
    token_plan: Specs
    token_plan_cn: Specs
    modelscope: Specs
    openrouter: Specs
    vllm: Specs
    ollama: Specs
    llama_cpp: Specs
    openai_compatible: Specs
    local_model: Path | None
    local_context_tokens: int
    local_threads: int

    data_dir: Path
    save_mode: SaveMode
    redis_url: Secret | None
    redis_prefix: str
    secret_key: Secret | None
    cache_mode: CacheMode
    audit_days: int
    stored_responses_days: int
    usage_hourly_days: int
    usage_daily_days: int
    node_env: str

    log_level: LogLevel
    log_format: LogFormat
    file_log: bool
    log_dir: Path
    max_log_file_bytes: int
    max_log_files: int

    sources: dict[str, Source]
    texts: dict[str, str]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """As an operator may see it: a proxy's login, which is plain in its field, is masked."""
        return f"Settings({', '.join(f'{name}={text!r}' for name, text in self.texts.items())})"

    @property
    def uses_simulator(self) -> bool:
        """Whether requests go to the built-in simulated upstream instead of `chat_base_url`."""
        if self.simulator is SimulatorUse.AUTO:
            return not self.accounts and self.sources["QWEN_CHAT_PROXY_URL"] is Source.DEFAULT
        return self.simulator is SimulatorUse.ALWAYS


def load(environ: Mapping[str, str], dotenv: Path | None) -> Settings:
    """Read every variable: the environment wins over the `.env` file, that over the default; empty is unset.

    A `dotenv` that does not exist is none. The same input always gives the same settings, so that every worker
    process may load them again (see `handed_on`). Raises WrongSetting.
    """
    from_file = _read_dotenv(dotenv)
    values: dict[str, object] = {}
    sources: dict[str, Source] = {}
    texts: dict[str, str] = {}
    for variable in VARIABLES:
        text, source = _find(variable, environ, from_file)
        values[variable.field] = _read(variable, text)
        sources[variable.name] = source
        texts[variable.name] = _masked(variable, text)
    warnings = _misspelt(environ, from_file)
    return msgspec.convert({**values, "sources": sources, "texts": texts, "warnings": tuple(warnings)}, Settings)


def overlaid(settings: Settings, values: Mapping[str, str]) -> Settings:
    """The same with these variables set at run time. Raises WrongSetting."""
    changed: dict[str, object] = {}
    sources, texts = dict(settings.sources), dict(settings.texts)
    for name, text in values.items():
        variable = BY_NAME[name]
        changed[variable.field] = _read(variable, text)
        sources[name] = Source.RUNTIME
        texts[name] = _masked(variable, text)
    return structs.replace(settings, **changed, sources=sources, texts=texts)


def handed_on(environ: Mapping[str, str], dotenv: Path | None) -> dict[str, str]:
    """`environ` with what the `.env` file adds: a process that starts later has the same settings from it alone.

    Raises WrongSetting.
    """
    from_file = _read_dotenv(dotenv)
    added = {name: from_file[name] for name in NAMES if name in from_file and not environ.get(name, "").strip()}
    return {**environ, **added}


def _read_dotenv(path: Path | None) -> dict[str, str]:
    if path is None or not path.is_file():
        return {}
    try:
        # Not interpolated: a password may hold `$`.
        read = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongSetting(".env", str(path), "a file that can be read, in UTF-8") from error
    return {name: value for name, value in read.items() if value is not None}


def _find(variable: Variable, environ: Mapping[str, str], from_file: Mapping[str, str]) -> tuple[str, Source]:
    if text := environ.get(variable.name, "").strip():
        return text, Source.ENVIRONMENT
    if text := from_file.get(variable.name, "").strip():
        return text, Source.DOTENV
    return variable.default, Source.DEFAULT


def _read(variable: Variable, text: str) -> object:
    try:
        return variable.parser.read(text)
    except WrongValue as error:
        raise WrongSetting(variable.name, _masked(variable, text), str(error) or variable.parser.accepts) from None


def _masked(variable: Variable, text: str) -> str:
    return MASK if variable.secret and text else redacted(text)


def _misspelt(environ: Mapping[str, str], from_file: Mapping[str, str]) -> list[str]:
    """A name nearly ours is likely a slip; in `.env`, which is ours alone, any unknown name is worth a word."""
    warnings: list[str] = []
    for name in sorted({*environ, *from_file} - NAMES):
        near = difflib.get_close_matches(name.upper(), NAMES, n=1, cutoff=0.85)
        where = Source.DOTENV if name in from_file else Source.ENVIRONMENT
        if near:
            warnings.append(f"{name} ({where.value}) is not a variable of this program; did you mean {near[0]}?")
        elif name in from_file:
            warnings.append(f"{name} ({where.value}) is not a variable of this program, and has no effect")
    return warnings
