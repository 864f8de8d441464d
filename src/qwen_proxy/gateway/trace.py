"""What happened to one request: for its log line, and for what it is to be charged."""

from collections.abc import Callable, Sequence
from math import ceil

from msgspec import Struct, structs

from qwen_proxy.chat.events import Usage, UsageOrigin
from qwen_proxy.chat.result import usage_of_all
from qwen_proxy.gateway.prompted_tools import ToolReply
from qwen_proxy.gateway.reply import ReplyShaper
from qwen_proxy.gateway.sizing import tokens_in


class Trace(Struct):
    """Filled in as the request goes on. `failures` names the error classes of tries that were given up or repeated.

    account_id: as `backend.account_name` gives it. model: the backend's own id of it. usage: of a reply that came to
    its end. reply: of the last try, as far as it has come. partial_bytes: of the choices that were taken up without
    usage; unfinished_share: which part of the prompts they answer. tools: of the last try whose prompt taught some.
    verdicts: on replies that were unfit, in order.
    """

    request_id: str
    tries: int = 0
    account_id: str = ""
    backend: str = ""
    model: str = ""
    failures: list[str] = []
    usage: Usage | None = None
    reply: ReplyShaper | None = None
    partial_bytes: int = 0
    unfinished_share: float = 1.0
    tools: ToolReply | None = None
    verdicts: list[str] = []

    def take_up(self, choices: Sequence["Trace"], for_each: int) -> None:
        """Become the one line of a request for several replies: what each of them took, together.

        for_each: how many of them answer the same prompt, one after the other.
        """
        self.tries = sum(choice.tries for choice in choices)
        self.failures = [failure for choice in choices for failure in choice.failures]
        self.verdicts = [verdict for choice in choices for verdict in choice.verdicts]
        self.tools = next((choice.tools for choice in choices if choice.tools is not None), None)
        told = next((choice for choice in choices if choice.account_id), choices[0])
        self.account_id, self.backend, self.model = told.account_id, told.backend, told.model or self.model
        self.usage = usage_of_all([choice.usage for choice in choices], for_each)
        self.partial_bytes = sum(choice.unfinished_bytes for choice in choices)
        groups = [choices[first : first + for_each] for first in range(0, len(choices), for_each)]
        self.unfinished_share = sum(_is_unfinished(group) for group in groups) / len(groups)

    @property
    def unfinished_bytes(self) -> int:
        """What came of replies that did not come to their end."""
        if self.usage is not None or self.reply is None:
            return self.partial_bytes
        return self.reply.size_bytes

    def used(self, prompt_tokens: Callable[[], int], *, has_left: bool) -> Usage | None:
        """What the request has used; None for nothing.

        Of replies that broke off, what had come is estimated, and so is the prompt, with `prompt_tokens`. Where nothing
        had come the prompt counts only if the client has left (has_left): an account was at work for it by then.
        """
        rest = self.unfinished_bytes
        if not rest and (self.usage is not None or not (has_left and self.account_id)):
            return self.usage
        known = self.usage or Usage(prompt_tokens=0, completion_tokens=0)
        return structs.replace(
            known,
            prompt_tokens=known.prompt_tokens + ceil(self.unfinished_share * prompt_tokens()),
            completion_tokens=known.completion_tokens + tokens_in(rest),
            origin=UsageOrigin.COUNTED,
        )


def _is_unfinished(answers: Sequence[Trace]) -> bool:
    """Whether an account was at work on a prompt, of which no reply came to its end, which would tell of the prompt."""
    was_asked = any(answer.account_id or answer.unfinished_bytes for answer in answers)
    return was_asked and all(answer.usage is None for answer in answers)
