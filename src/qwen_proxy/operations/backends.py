"""What a person means by a key of a backend, and what to do where one does not answer as it should. Pure."""

from qwen_proxy.accounts.key_health import KeyState
from qwen_proxy.admin.backends import BackendKeyBody, BackendTestBody, KnownBackendBody
from qwen_proxy.config.backend_book import BackendOrigin
from qwen_proxy.config.backends import ServerKind
from qwen_proxy.operations.advice import Check, Trouble, failed, passed, warned

PLANS = "Give it another key; one of a plan works at that plan's address only, one of pay as you go at its own."


def keys_called(backend: KnownBackendBody, asked: str) -> list[str]:
    """Ids: the one that it is, else of those that end so, with or without the dots of a hint."""
    if any(key.id == asked for key in backend.keys):
        return [asked]
    end = asked.removeprefix("…")
    return [key.id for key in backend.keys if end and key.hint.endswith(end)]


def key_advice(backend: KnownBackendBody, key: BackendKeyBody | None) -> str:
    """About a key whose test failed; `key` is how it is after it."""
    state = KeyState.READY if key is None else key.state
    match state:
        case KeyState.RETIRED if backend.origin is BackendOrigin.ENVIRONMENT:
            return f"{PLANS} The environment has this backend: change it there."
        case KeyState.RETIRED:
            old = f", and: qwen-proxy backends keys remove {backend.name} {key.id}" if key is not None else ""
            return f"{PLANS} Then: qwen-proxy backends keys add {backend.name}{old}"
        case KeyState.OUT_OF_QUOTA | KeyState.THROTTLED:
            return "Wait until it rests no more, or add another key."
        case KeyState.READY:
            if backend.kind is ServerKind.LOCAL:
                return f"See whether the server runs, and answers at {backend.base_url}."
            return f"See whether {backend.base_url} is the right address, and can be reached from here."


def judge_backend(told: BackendTestBody) -> Check:
    """Some keys that are taken are enough to serve; none is not."""
    name, problems = f"backend {told.backend.name}", [key.problem for key in told.keys if key.problem]
    if not problems:
        return passed(name, f"lists {max((len(key.models) for key in told.keys), default=0)} models, with every key")
    if len(problems) < len(told.keys):
        return warned(name, Trouble.BACKEND, f"{len(problems)} of {len(told.keys)} keys are not taken: {problems[0]}")
    return failed(name, Trouble.BACKEND, problems[0])
