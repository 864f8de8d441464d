"""The routes beside `/v1/responses` that take a body like its own: counting, and making a conversation shorter. Pure.

`/v1/responses/compact` has no counterpart upstream: the model is asked to write down what matters of the conversation.
What it writes stands, opaque to the client, in the one item that the client goes on from.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct, structs

from qwen_proxy.chat.events import Usage
from qwen_proxy.chat.request import AUTO, ChatRequest, Message, Role, TextPart
from qwen_proxy.chat.result import ChatResult
from qwen_proxy.protocols.base import ReplyFacts
from qwen_proxy.protocols.openai_responses import ResponsesCall
from qwen_proxy.protocols.openai_responses_events import ResponseEncoder
from qwen_proxy.protocols.openai_responses_output import usage_told
from qwen_proxy.protocols.openai_responses_sealed import sealed

DEMAND: Final = (
    "Write a summary of this conversation, from which another assistant, who has not seen it, can go on as if it had."
    " Keep: what the user wants and has said about how; decisions and their reasons; what was done, with the exact"
    " names of files, functions, commands and values; what was found out; what failed; what is left to do, and what"
    " comes next. Do not call tools and do not continue the work: answer with the summary alone."
)


class CompactCall(Struct, frozen=True, kw_only=True):
    """Fits `protocols.base.Call`."""

    request: ChatRequest
    inner: ResponsesCall
    ignored_fields: tuple[str, ...]
    session: str
    stream: bool = False
    choices: int = 1
    further: tuple[ChatRequest, ...] = ()
    needs_prompt_tokens: bool = False

    def encoder(self, facts: ReplyFacts, index: int) -> ResponseEncoder:
        """It is never streamed."""
        return self.inner.encoder(facts, index)

    def trailer(self, facts: ReplyFacts, usage: Usage) -> bytes:
        return self.inner.trailer(facts, usage)

    def result(self, facts: ReplyFacts, results: Sequence[ChatResult]) -> bytes:
        (result,) = results
        item = {"id": f"cmp_{facts.reply_id}0000", "type": "compaction", "encrypted_content": sealed(result.text)}
        told = {
            "id": f"resp_{facts.reply_id}",
            "object": "response.compaction",
            "created_at": facts.created_at,
            "output": [item],
            "usage": None if result.usage is None else usage_told(result.usage),
        }
        return msgspec.json.encode(told)


def compacting(call: ResponsesCall) -> CompactCall:
    """The call that asks for the summary. Its tools stay out of it, their calls and results do not."""
    request = structs.replace(
        call.request,
        messages=(*call.request.messages, Message(Role.USER, (TextPart(DEMAND),))),
        tools=(),
        tool_choice=AUTO,
        output=None,
    )
    return CompactCall(request=request, inner=call, ignored_fields=call.ignored_fields, session=call.session)


def counted(tokens: int) -> bytes:
    return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": tokens})
