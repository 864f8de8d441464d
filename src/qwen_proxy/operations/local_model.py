"""LOCAL_MODEL_PATH: a model that the supervisor runs, and how its workers know of it."""

import importlib.util
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from qwen_proxy.app.machine import Machine
from qwen_proxy.config.backend_settings import environment_backends
from qwen_proxy.config.backends import BackendSpec, ServerKind, Thinking
from qwen_proxy.config.settings import Settings, WrongSetting
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.environment import processors
from qwen_proxy.workers.llama_server import PACKAGE, LlamaOptions
from qwen_proxy.workers.local_model import LLAMA_COMMAND, ModelNotLoaded, open_local_model

NAME: Final = "local"
SLOTS: Final = 2  # a chat, and the title that its program asks for beside it; more would only be slower
KEY_VARIABLE: Final = "QWEN_PROXY_LOCAL_KEY"  # from the supervisor to its workers, unseen by other users
KEY_DIGITS: Final = 48
INSTALL: Final = "pip install 'qwen-proxy[local]'"
_PART: Final = re.compile(r"-\d{5}-of-\d{5}$")  # of a model in several files; the first is named
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9._-]+")


class Local(Struct, frozen=True):
    """address: empty where no model is run."""

    address: str = ""
    key: Secret = Secret("")

    @property
    def handed_on(self) -> Mapping[str, str]:
        """What a worker's environment has besides."""
        return {KEY_VARIABLE: self.key.reveal()} if self.address else {}


def model_id(path: Path) -> str:
    """As clients name it: the file's name."""
    return _UNUSUAL.sub("-", _PART.sub("", path.stem)).strip("-") or NAME


def check_local(settings: Settings, package: str = PACKAGE) -> None:
    """Raises WrongSetting where the model can't be run, or its name is given away."""
    if settings.local_model is None:
        return
    if importlib.util.find_spec(package) is None:
        right = f"left out, or what runs it installed: {INSTALL}"
        raise WrongSetting("LOCAL_MODEL_PATH", str(settings.local_model), right)
    if any(spec.name == NAME for spec in environment_backends(settings)):
        right = f"left out while BACKENDS describes another backend {NAME!r}"
        raise WrongSetting("LOCAL_MODEL_PATH", str(settings.local_model), right)


@asynccontextmanager
async def open_local(
    settings: Settings, machine: Machine, tell: Callable[[str], None], command: Sequence[str] = LLAMA_COMMAND
) -> AsyncGenerator[Local]:
    """The model of LOCAL_MODEL_PATH, if any, loaded, and running while the block lasts. Raises WrongSetting."""
    path = settings.local_model
    if path is None:
        yield Local()
        return
    key = Secret(machine.ids.token(KEY_DIGITS))
    options = LlamaOptions(
        path=str(path),
        model=model_id(path),
        key=key.reveal(),
        context_tokens=settings.local_context_tokens,
        slots=SLOTS,
        threads=settings.local_threads or processors(),
    )
    tell(f"Loading the local model {options.model} ...")
    try:
        async with open_local_model(options, machine.clock, command) as model:
            tell(f"The backend '{NAME}' answers with the model {options.model}.")
            yield Local(model.address, key)
    except ModelNotLoaded as error:
        raise WrongSetting("LOCAL_MODEL_PATH", str(path), f"a model that llama.cpp can load ({error})") from error


def handed_local(settings: Settings, address: str, environ: Mapping[str, str]) -> tuple[BackendSpec, ...]:
    """The backend, as a worker makes it of what the supervisor hands it; none where `address` is empty."""
    if not address or settings.local_model is None:
        return ()
    return (
        BackendSpec(
            name=NAME,
            base_url=f"{address}/v1",
            kind=ServerKind.LOCAL,
            keys=(Secret(environ.get(KEY_VARIABLE, "")),),
            models=(model_id(settings.local_model),),
            concurrency=SLOTS,
            thinking=Thinking.TEMPLATE,
        ),
    )
