"""Errors of the pool on their way to another process."""

from collections.abc import Iterator

from qwen_proxy.ground.errors import ProxyError, SignInReason
from qwen_proxy.workers.messages import Refused


def told(number: int, error: ProxyError) -> Refused:
    """The error as its class, its sentence and its plain facts; a traceback stays here."""
    facts: dict[str, str | int | float | None] = {}
    for name, value in vars(error).items():
        if isinstance(value, SignInReason):
            facts[name] = value.value
        elif value is None or isinstance(value, str | int | float):
            facts[name] = value
    return Refused(number, type(error).__name__, str(error), facts)


def rebuilt(refused: Refused) -> ProxyError:
    """The same error again: one of the classes of ground/errors.py, with its sentence and facts."""
    kind = next((each for each in _family(ProxyError) if each.__name__ == refused.kind), ProxyError)
    error = kind.__new__(kind, refused.sentence)  # its own constructor would ask for what the sentence was made of
    for name, value in refused.facts.items():
        setattr(error, name, SignInReason(value) if name == "reason" else value)
    return error


def _family(kind: type[ProxyError]) -> Iterator[type[ProxyError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)
