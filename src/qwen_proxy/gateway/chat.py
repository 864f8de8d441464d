"""A chat request on its way to a backend: which may be asked, what of it has no effect there, and its reply."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from msgspec import structs

from qwen_proxy.chat.counting import TokenCounter
from qwen_proxy.chat.events import Batch
from qwen_proxy.chat.request import ChatRequest, ImagePart, TextPart, ToolResultPart
from qwen_proxy.config.keys import ClientKey
from qwen_proxy.gateway.api_budget import ApiBudget
from qwen_proxy.gateway.attempts import Attempts, backend_of, check
from qwen_proxy.gateway.backend import WEB
from qwen_proxy.gateway.counter import Counter
from qwen_proxy.gateway.overflow import Line
from qwen_proxy.gateway.permission import EVERYWHERE, Scope, find_route
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Route, Target, ordered, searching, share_of
from qwen_proxy.gateway.run import GatewayOptions, Run
from qwen_proxy.gateway.trace import Trace
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids

# As clients of several protocols spell what is read into Sampling.
SAMPLING_FIELDS = frozenset(
    (
        *("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty"),
        *("topP", "topK", "presencePenalty", "frequencyPenalty"),
    )
)


class ChatGateway:
    def __init__(
        self,
        router: Router,
        *,
        clock: Clock,
        ids: Ids,
        tokens: TokenCounter,
        load_tokens: Callable[[], None] = lambda: None,
        options: GatewayOptions,
    ) -> None:
        """`load_tokens` makes `tokens` ready; it may take half a second, and is called once, in a thread.

        `options` may be replaced at any time: a request keeps those it began with.
        """
        self._router = router
        self._clock = clock
        self._ids = ids
        self._counter = Counter(tokens, load_tokens)
        self.options = options

    async def resolve(
        self, request: ChatRequest, caller: ClientKey | None = None, scope: Scope = EVERYWHERE
    ) -> tuple[ChatRequest, Route]:
        """Where the request may go. The request that comes back is for the first target of the route.

        A client may want a search without a name that says so: `request.model.variant.search`.
        caller: whose key has to allow it; None: nobody's. Raises ModelNotFound, NotAllowed, NoAccountUsable (a route
        of which nothing is there), UnsupportedParameter, PromptTooLong, or why there is no list.
        """
        route = await find_route(self._router, request.model.base, caller, scope)
        if request.model.variant.search:
            route = searching(route)
        refusal: ProxyError | None = None
        for place, target in enumerate(route.targets):
            asked = structs.replace(request, model=target.name)
            try:
                check(asked, backend_of(self._router, target))
            except ProxyError as error:
                refusal = refusal or error
                continue
            return asked, structs.replace(route, targets=route.targets[place:]) if place else route
        assert refusal is not None  # a route that was found has targets
        raise refusal

    async def count_prompt(self, request: ChatRequest) -> int:
        """Tokens of the prompt, counted here."""
        return await self._counter.prompt(request)

    def without_effect(self, fields: Sequence[str], request: ChatRequest, route: Route) -> list[str]:
        """Of the fields of a client's body that have none here, those that the route's upstream has no use for."""
        backend = self._router.find(route.targets[0].backend)
        if backend is None or not backend.upstream.forwards_fields:
            return list(fields)
        handed_on = SAMPLING_FIELDS | request.extra.keys()
        return [field for field in fields if field.rpartition(".")[2] not in handed_on]

    def warnings(self, request: ChatRequest, route: Route, *, wished: ChatRequest) -> list[str]:
        """What a client should know of how this request is asked, though it is no reason to refuse it; ASCII.

        wished: as it was before `resolve`.
        """
        told: list[str] = []
        if wished.model.variant.search and not request.model.variant.search:
            told.append("this model searches nothing")
        if route.targets[0].backend != WEB:
            return told
        results = [part for message in request.messages for part in message.parts if isinstance(part, ToolResultPart)]
        if any(isinstance(inner, ImagePart) for result in results for inner in result.parts):
            told.append("images in the results of tools are not shown to the model")
        if (most := self.options.result_bytes) and any(_size_bytes(result) > most for result in results):
            told.append(f"results of tools that are longer than {most} bytes are cut in their middle")
        return told

    @property
    def follows_sessions(self) -> bool:
        """Whether it is of use to name the session of a request."""
        return self._router.follows_sessions

    def open(
        self,
        request: ChatRequest,
        route: Route,
        trace: Trace,
        *,
        session: str = "",
        in_one: bool = False,
        budget: ApiBudget | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Hand out the reply's batches; the first one that comes out carries content, or is the whole reply.

        Until then attempts may be repeated, and go on to the next target of the route; afterwards a failure is raised
        where it happened. `in_one` is for who does not stream: one batch, so that a try that fails behind its content
        is repeated too. Every reply has its Usage. `session`: see `gateway.sessions`. `trace` tells which backend it
        is. budget: of the caller's key, for tries on paid backends. Leaving the block closes the upstream's response
        and returns the lease. Raises ProxyError.
        """
        options = self.options
        line = Line(self._in_order(route.targets, session))
        run = Run(request, options, line, self._clock.monotonic() + options.deadline_seconds, budget)
        return Attempts(run, trace, session, in_one, self._router, self._counter, self._clock)

    def _in_order(self, targets: Sequence[Target], session: str) -> Sequence[Target]:
        """Where the conversation is not known, each request draws anew."""
        if len(targets) == 1:
            return targets
        seed = session or self._ids.token(16)
        return ordered(targets, lambda place: share_of(seed, place))


def _size_bytes(result: ToolResultPart) -> int:
    texts = (inner.text for inner in result.parts if isinstance(inner, TextPart))
    return sum(len(text) if text.isascii() else len(text.encode(errors="surrogatepass")) for text in texts)
