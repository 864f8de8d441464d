"""The client side: what every protocol of `protocols.PROTOCOLS` offers. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

from msgspec import Struct

from qwen_proxy.chat.events import Batch, Usage
from qwen_proxy.chat.models import Model, Variant
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.chat.result import ChatResult
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.ground.limits import LimitFacts


class Incoming(Struct, frozen=True, kw_only=True):
    """A client's request as it came. Headers are found by their lower-case names; `body` is whole.

    variables: what stood in the places of the route's path that have a name, such as `model`.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    variables: Mapping[str, str] = {}


class ParseOptions(Struct, frozen=True, kw_only=True):
    """What an operator decides about requests of every protocol.

    strict: refuse fields that would be ignored. max_choices: the cap on `n`.
    """

    strict: bool = False
    max_choices: int = 8


class ReplyFacts(Struct, frozen=True, kw_only=True):
    """What a reply needs besides its events. `reply_id` is bare: a protocol puts its own prefix before it.

    created_at: Unix seconds. model: the name the reply carries.
    prompt_tokens: counted here, None unless the protocol said `needs_prompt_tokens`.
    elapsed_seconds: asks the clock how long ago the request came, for protocols whose replies tell it.
    """

    reply_id: str
    request_id: str
    created_at: int
    model: str
    prompt_tokens: int | None = None
    elapsed_seconds: Callable[[], float] = float


class ErrorReply(Struct, frozen=True, kw_only=True):
    """`headers` holds what the protocol itself wants besides Content-Type: application/json."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class EventEncoder(Protocol):
    """Events of one choice to bytes, all of one batch in one piece; what is empty is not written."""

    def start(self) -> bytes:
        """What opens the choice; goes out with the first content."""
        ...

    def encode(self, batch: Batch) -> bytes: ...

    def fail(self, error: ProxyError) -> bytes:
        """Tell a failure in the middle of the stream. Nothing is written after it."""
        ...


class Call(Protocol):
    """A parsed request, which knows how its reply is written.

    request: `model.base` is still as the client spelt it; the gateway's catalogue resolves it.
    further: what is asked besides, of the same model and in the same way: other prompts of OpenAI's older completions.
    choices: how many replies are wanted to each of these (OpenAI's `n`); they come one request after the other.
    ignored_fields: what is without effect here; told in a header of the reply.
    session: what the body says of the conversation it belongs to, empty where nothing; see `gateway.sessions`.
    """

    @property
    def request(self) -> ChatRequest: ...
    @property
    def further(self) -> Sequence[ChatRequest]: ...
    @property
    def stream(self) -> bool: ...
    @property
    def choices(self) -> int: ...
    @property
    def ignored_fields(self) -> tuple[str, ...]: ...
    @property
    def needs_prompt_tokens(self) -> bool: ...
    @property
    def session(self) -> str: ...

    def encoder(self, facts: ReplyFacts, index: int) -> EventEncoder:
        """For choice `index`, from 0, over all requests."""
        ...

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        """What ends a stream once every choice has had its Finish.

        usage: the sum over them; each request's prompt counts once.
        """
        ...

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        """The body of a reply that is not streamed: one result a choice."""
        ...


class Dialect(Protocol):
    """What every route of a protocol has in common, whatever it serves.

    request_id_header: where the protocol's clients look for the request's id, besides `x-request-id`.
    """

    request_id_header: ClassVar[str]

    def error(self, error: ProxyError, request_id: str) -> ErrorReply:
        """Total: there is a reply for every class of the tree."""
        ...

    def limit_headers(self, facts: LimitFacts) -> tuple[tuple[str, str], ...]:
        """Headers that tell a caller of its key's limits, on every answer, good or bad."""
        ...


class ClientProtocol(Dialect, Protocol):
    """`heartbeat` keeps a silent stream alive, in the protocol's own way; empty where it knows none."""

    stream_content_type: ClassVar[str]
    heartbeat: ClassVar[bytes]

    def parse(self, incoming: Incoming, options: ParseOptions) -> Call:
        """Raises InvalidRequest, which names the field and what would be right."""
        ...


class CountProtocol(Dialect, Protocol):
    """A route that only counts what a prompt would cost: never asks an upstream, never takes an account."""

    def parse(self, incoming: Incoming, options: ParseOptions) -> ChatRequest:
        """Raises InvalidRequest."""
        ...

    def result(self, prompt_tokens: int) -> bytes: ...


class ListedModel(Struct, frozen=True, kw_only=True):
    """A model as it is offered. `id` and `name` are its two spellings, with the suffix, in the operator's order.

    backend: the name of that which has it; empty where it is the name of a route.
    """

    id: str
    name: str
    variant: Variant
    model: Model
    backend: str = ""


class ModelsProtocol(Dialect, Protocol):
    """A route that lists the models."""

    def all(self, models: Sequence[ListedModel], query: Mapping[str, str]) -> bytes:
        """Raises InvalidRequest for a query that asks for a part of the list and is wrong."""
        ...

    def one(self, model: ListedModel) -> bytes: ...


class ShowProtocol(Dialect, Protocol):
    """A route that tells of one model, which the body names."""

    def asked(self, incoming: Incoming) -> str:
        """Its name, as the client spells it. Raises InvalidRequest."""
        ...

    def one(self, model: ListedModel) -> bytes: ...
