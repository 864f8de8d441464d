"""Backends besides chat.qwen.ai, as an operator describes them: servers that speak OpenAI's API. Pure.

Bases and keys of the offers: upstream protocol §8.7.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy.config.addresses import PROXY_SCHEMES, url_problem
from qwen_proxy.ground.secret import Secret

MOST_KEYS: Final = 1000
MOST_MODELS: Final = 1000
NAME_FORM: Final = "small letters, digits, '-', '_' and '.', at most 40, beginning with a letter or digit"
QWEN_CODE: Final = "qwen-code"
OPENAI: Final = "openai"
TAKEN_NAMES: Final = frozenset(("web", "api", QWEN_CODE))  # the site, a kind of backends, and Qwen Code
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._/-]{0,40}")
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{0,4096}")
OURS_TO_SAY: Final = frozenset(("content-length", "transfer-encoding", "host", "connection"))


class Thinking(StrEnum):
    """How a server is told whether, and how much, to think."""

    EFFORT = "effort"  # OpenAI, Ollama: `reasoning_effort`
    DASHSCOPE = "dashscope"  # `enable_thinking`, `thinking_budget`; it also knows `enable_search`
    TEMPLATE = "template"  # vLLM, llama.cpp: `chat_template_kwargs.enable_thinking`
    OPENROUTER = "openrouter"  # `reasoning: {effort, max_tokens, enabled}`


class ServerKind(StrEnum):
    """What policies of keys speak of: a paid API, or a server of one's own."""

    API = "api"
    LOCAL = "local"


class BackendSpec(Struct, frozen=True, kw_only=True):
    """One backend. base_url: what `/chat/completions` is put behind. models: its ids; empty: it is asked for them.

    usual_models: its ids where it has no list. prefix: before its models' ids in the public list. exit: a proxy URL;
    empty: PROXY_URL for an API, direct for a local server. key_concurrency, concurrency: requests at a time with each
    key and in all, over all processes; 0 for no limit. preset: what it was made from, empty for none.
    protocol: how it is spoken to, by a name of `upstreams.table`.
    """

    name: str
    base_url: str
    kind: ServerKind = ServerKind.API
    keys: tuple[Secret, ...] = ()
    models: tuple[str, ...] = ()
    usual_models: tuple[str, ...] = ()
    prefix: str = ""
    headers: tuple[tuple[str, Secret], ...] = ()
    exit: str = ""
    key_concurrency: int = 0
    concurrency: int = 0
    thinking: Thinking = Thinking.EFFORT
    preset: str = ""
    enabled: bool = True
    protocol: str = OPENAI


class Preset(Struct, frozen=True, kw_only=True):
    """An offer whose facts are known. has_keys: it wants one. base_url empty: each has an address of its own."""

    title: str
    base_url: str = ""
    kind: ServerKind = ServerKind.API
    thinking: Thinking = Thinking.DASHSCOPE
    usual_models: tuple[str, ...] = ()
    has_keys: bool = True


PLAN_MODELS: Final = ("qwen3.7-plus", "qwen3.6-plus", "qwen3.5-plus", "qwen3-coder-plus")

PRESETS: Final[Mapping[str, Preset]] = {
    "model-studio": Preset(
        title="Model Studio, international", base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
    ),
    "model-studio-cn": Preset(
        title="Model Studio, China", base_url="https://dashscope.aliyuncs.com/compatible-mode/v1"
    ),
    "coding-plan": Preset(
        title="Coding Plan, international",
        base_url="https://coding-intl.dashscope.aliyuncs.com/v1",
        usual_models=PLAN_MODELS,
    ),
    "coding-plan-cn": Preset(
        title="Coding Plan, China", base_url="https://coding.dashscope.aliyuncs.com/v1", usual_models=PLAN_MODELS
    ),
    "token-plan": Preset(
        title="Token Plan, international",
        base_url="https://token-plan.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1",
        usual_models=PLAN_MODELS,
    ),
    "token-plan-cn": Preset(
        title="Token Plan, China",
        base_url="https://token-plan.cn-beijing.maas.aliyuncs.com/compatible-mode/v1",
        usual_models=PLAN_MODELS,
    ),
    "modelscope": Preset(title="ModelScope inference", base_url="https://api-inference.modelscope.cn/v1"),
    "openrouter": Preset(title="OpenRouter", base_url="https://openrouter.ai/api/v1", thinking=Thinking.OPENROUTER),
    "vllm": Preset(title="vLLM", kind=ServerKind.LOCAL, thinking=Thinking.TEMPLATE, has_keys=False),
    "ollama": Preset(title="Ollama", kind=ServerKind.LOCAL, thinking=Thinking.EFFORT, has_keys=False),
    "llama-cpp": Preset(title="llama.cpp", kind=ServerKind.LOCAL, thinking=Thinking.TEMPLATE, has_keys=False),
}


class WrongBackend(ValueError):
    """A description that can't be used. `field` is its field, `right` what it should be: a clause."""

    def __init__(self, field: str, right: str) -> None:
        super().__init__(f"{field} should be {right}")
        self.field = field
        self.right = right


class BackendForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator writes: one element of BACKENDS. null: the preset's, else the usual."""

    name: str | None = None
    preset: str | None = None
    base_url: str | None = None
    kind: ServerKind | None = None
    key: str | None = None
    keys: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    prefix: str | None = None
    headers: dict[str, str] | None = None
    exit: str | None = None
    key_concurrency: int | None = None
    concurrency: int | None = None
    thinking: Thinking | None = None
    enabled: bool | None = None
    protocol: str | None = None

    def __repr__(self) -> str:
        return f"BackendForm({self.name!r}, preset={self.preset!r})"


_FORM: Final = msgspec.json.Decoder(BackendForm)
_FORMS: Final = msgspec.json.Decoder(list[BackendForm])


def read_forms(text: bytes) -> tuple[BackendSpec, ...]:
    """A JSON array of descriptions, or one. Raises WrongBackend."""
    try:
        is_one = text.lstrip().startswith(b"{")
        forms = [_FORM.decode(text)] if is_one else _FORMS.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongBackend("BACKENDS", f"a JSON array of backends ({error})") from error
    specs = tuple(spec_of(form) for form in forms)
    check_names(specs)
    return specs


def check_names(specs: Sequence[BackendSpec]) -> None:
    """Raises WrongBackend where two have one name."""
    names = [spec.name for spec in specs]
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise WrongBackend("name", f"another: there are two backends {twice!r}")


def spec_of(form: BackendForm, before: BackendSpec | None = None) -> BackendSpec:
    """Checked. before: what is changed; what the form leaves out stays. Raises WrongBackend."""
    preset = _preset(form.preset if form.preset is not None else before.preset if before is not None else "")
    name = before.name if before is not None else form.name or form.preset or ""
    if form.name not in (None, name):
        raise WrongBackend("name", f"{name!r}: a backend keeps its name")
    start = before if before is not None and form.preset in (None, before.preset) else None
    base = start or BackendSpec(
        name=name,
        base_url=preset.base_url,
        kind=preset.kind,
        thinking=preset.thinking,
        usual_models=preset.usual_models,
        preset=form.preset or "",
        keys=before.keys if before is not None else (),
    )
    spec = msgspec.structs.replace(
        base,
        **{
            field: value
            for field, value in (
                ("base_url", _address(form.base_url, preset)),
                ("kind", form.kind),
                ("keys", _keys(form)),
                ("models", form.models),
                ("prefix", form.prefix),
                ("headers", _headers(form.headers)),
                ("exit", form.exit),
                ("key_concurrency", form.key_concurrency),
                ("concurrency", form.concurrency),
                ("thinking", form.thinking),
                ("enabled", form.enabled),
                ("protocol", form.protocol),
            )
            if value is not None
        },
    )
    _check(spec)
    return spec


def from_preset(name: str, *, keys: Sequence[Secret] = (), base_url: str = "") -> BackendSpec:
    """What one variable makes. Raises WrongBackend."""
    form = BackendForm(preset=name, base_url=base_url or None, keys=tuple(key.reveal() for key in keys))
    return spec_of(form)


def _preset(name: str) -> Preset:
    if not name:
        return Preset(title="", thinking=Thinking.EFFORT, has_keys=False)
    preset = PRESETS.get(name)
    if preset is None:
        raise WrongBackend("preset", f"one of {', '.join(PRESETS)}, or left out")
    return preset


def _address(base_url: str | None, preset: Preset) -> str | None:
    """People give a local server's bare address; its API is below /v1."""
    if base_url is None:
        return None
    url = base_url.strip().rstrip("/").removesuffix("/chat/completions")
    is_bare = url.count("/") == 2
    return f"{url}/v1" if is_bare and preset.kind is ServerKind.LOCAL else url


def _keys(form: BackendForm) -> tuple[Secret, ...] | None:
    if form.key is not None and form.keys is not None:
        raise WrongBackend("keys", "left out where `key` is given")
    given = (form.key,) if form.key is not None else form.keys
    return None if given is None else tuple(Secret(key) for key in dict.fromkeys(key.strip() for key in given) if key)


def _headers(headers: dict[str, str] | None) -> tuple[tuple[str, Secret], ...] | None:
    return None if headers is None else tuple((name, Secret(value)) for name, value in headers.items())


def _check(spec: BackendSpec) -> None:
    if not _NAME.fullmatch(spec.name) or spec.name in TAKEN_NAMES:
        raise WrongBackend("name", f"{NAME_FORM}, and none of {', '.join(sorted(TAKEN_NAMES))}")
    if not spec.base_url:
        raise WrongBackend("base_url", "given: the address in front of /chat/completions")
    if (problem := url_problem(spec.base_url, ("http", "https"))) is not None:
        raise WrongBackend("base_url", f"an http(s) URL ({problem})")
    if spec.exit and (problem := url_problem(spec.exit, PROXY_SCHEMES)) is not None:
        raise WrongBackend("exit", f"the URL of a proxy ({problem})")
    if len(spec.keys) > MOST_KEYS or not all(_PRINTABLE.fullmatch(key.reveal()) for key in spec.keys):
        raise WrongBackend("keys", f"at most {MOST_KEYS} keys of printable ASCII without spaces")
    if spec.preset and PRESETS[spec.preset].has_keys and not spec.keys:
        raise WrongBackend("keys", f"given: {PRESETS[spec.preset].title} wants a key")
    if not _PREFIX.fullmatch(spec.prefix):
        raise WrongBackend("prefix", "letters, digits, '.', '_', '-' and '/', at most 40")
    if len(spec.models) > MOST_MODELS or not all(_PRINTABLE.fullmatch(model) for model in spec.models):
        raise WrongBackend("models", f"at most {MOST_MODELS} ids of printable ASCII without spaces")
    for name, value in spec.headers:
        if not _HEADER_NAME.fullmatch(name) or name.casefold() in OURS_TO_SAY:
            raise WrongBackend("headers", "names of headers, none of which says how the request is sent")
        if not _HEADER_VALUE.fullmatch(value.reveal()):
            raise WrongBackend("headers", "values of printable ASCII")
    if min(spec.key_concurrency, spec.concurrency) < 0 or max(spec.key_concurrency, spec.concurrency) > 10_000:
        raise WrongBackend("concurrency", "0 for no limit, or up to 10000")
