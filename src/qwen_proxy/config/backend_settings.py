"""Variables that describe backends: the keys of each offer, the addresses of local servers, and BACKENDS. Pure but for
the file that BACKENDS may name."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from qwen_proxy.config.backends import (
    BackendForm,
    BackendSpec,
    WrongBackend,
    from_preset,
    read_forms,
    spec_of,
)
from qwen_proxy.config.values import Parser, WrongValue
from qwen_proxy.ground.secret import Secret

T = TypeVar("T")
Specs = tuple[BackendSpec, ...]
OPEN: Final = "openai-compatible"


def keys_of(preset: str) -> Parser:
    """API keys, with commas between, for an offer."""

    def read(text: str) -> Specs:
        keys = [Secret(key.strip()) for key in text.split(",") if key.strip()]
        return (_tried(lambda: from_preset(preset, keys=keys)),) if keys else ()

    return Parser("one or more API keys, with commas between", read)


def address_of(preset: str) -> Parser:
    """The address of a local server."""

    def read(text: str) -> Specs:
        return (_tried(lambda: from_preset(preset, base_url=text)),) if text else ()

    return Parser("the server's address, such as http://127.0.0.1:8000", read)


def _any_server(text: str) -> Specs:
    """`address`, or `address|key,key`."""
    if not text:
        return ()
    address, _, keys = text.partition("|")
    form = BackendForm(name=OPEN, base_url=address, keys=tuple(keys.split(",")) if keys else None)
    return (_tried(lambda: spec_of(form)),)


def _all(text: str) -> Specs:
    if not text:
        return ()
    if not text.lstrip().startswith(("[", "{")):
        path = Path(text)
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise WrongValue("a JSON array of backends, or a file that holds one") from error
    return _tried(lambda: read_forms(text.encode()))


def _tried(make: Callable[[], T]) -> T:
    try:
        return make()
    except WrongBackend as error:
        raise WrongValue(f"a backend whose {error}") from error


ANY_SERVER: Final = Parser("a server's base URL, and behind a | its API keys, with commas between", _any_server)
BACKENDS: Final = Parser("a JSON array of backends, or a file that holds one", _all)


class Described(Protocol):
    """What is needed of `config.settings.Settings`: one field a variable, in the order of preference."""

    @property
    def backends(self) -> Specs: ...
    @property
    def model_studio(self) -> Specs: ...
    @property
    def model_studio_cn(self) -> Specs: ...
    @property
    def coding_plan(self) -> Specs: ...
    @property
    def coding_plan_cn(self) -> Specs: ...
    @property
    def token_plan(self) -> Specs: ...
    @property
    def token_plan_cn(self) -> Specs: ...
    @property
    def modelscope(self) -> Specs: ...
    @property
    def openrouter(self) -> Specs: ...
    @property
    def vllm(self) -> Specs: ...
    @property
    def ollama(self) -> Specs: ...
    @property
    def llama_cpp(self) -> Specs: ...
    @property
    def openai_compatible(self) -> Specs: ...


def environment_backends(settings: Described) -> Specs:
    """All that the environment describes. Of two with one name the one in BACKENDS holds."""
    found = (
        *settings.backends,
        *settings.model_studio,
        *settings.model_studio_cn,
        *settings.coding_plan,
        *settings.coding_plan_cn,
        *settings.token_plan,
        *settings.token_plan_cn,
        *settings.modelscope,
        *settings.openrouter,
        *settings.vllm,
        *settings.ollama,
        *settings.llama_cpp,
        *settings.openai_compatible,
    )
    by_name: dict[str, BackendSpec] = {}
    for spec in found:
        by_name.setdefault(spec.name, spec)
    return tuple(by_name.values())
