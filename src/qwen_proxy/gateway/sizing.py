"""How many tokens a request may cost, before it is known: what is reserved of a key's limits. Pure."""

from collections.abc import Sequence
from typing import Final, assert_never

import msgspec
from msgspec import Struct

from qwen_proxy.chat.request import (
    ChatRequest,
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

BYTES_PER_TOKEN: Final = 3  # a little less than what text of any language has, so that few requests cost more
ATTACHMENT_BYTES: Final = 1000 * BYTES_PER_TOKEN  # a picture or file, whatever the length of its URL


class Size(Struct, frozen=True):
    """prompt_tokens: estimated. reply_tokens: the most that one reply may have, None where the client did not say.

    choices: how many replies are wanted, over all `prompts`.
    """

    prompt_tokens: int
    reply_tokens: int | None = None
    choices: int = 1
    prompts: int = 1

    @property
    def one_prompt_tokens(self) -> int:
        """Of one of the prompts, on an average."""
        return -(-self.prompt_tokens // self.prompts)


def chat_size(request: ChatRequest, choices: int, further: Sequence[ChatRequest] = ()) -> Size:
    """choices: wanted of each request. further: what is asked besides, with the same limit of its replies."""
    prompts = (request, *further)
    prompt_tokens = sum(_prompt_tokens(each) for each in prompts)
    return Size(prompt_tokens, request.sampling.max_tokens, choices * len(prompts), len(prompts))


def _prompt_tokens(request: ChatRequest) -> int:
    size_bytes = sum(_part_bytes(part) for message in request.messages for part in message.parts)
    if request.tools:
        size_bytes += len(msgspec.json.encode(request.tools))
    return tokens_in(size_bytes)


def tokens_in(size_bytes: int) -> int:
    """Rounded up."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def _part_bytes(part: Part) -> int:
    match part:
        case TextPart(text) | ReasoningPart(text):
            return _bytes(text)
        case ToolCallPart(_, name, arguments):
            return _bytes(name) + _bytes(arguments)
        case ToolResultPart():
            return sum(_part_bytes(inner) for inner in part.parts)
        case ImagePart() | FilePart():
            return ATTACHMENT_BYTES
        case _:
            assert_never(part)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
