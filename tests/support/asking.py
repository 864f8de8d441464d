"""A chat client for end-to-end tests that reads replies into typed values, whole or streamed."""

import msgspec
from msgspec import Struct

from tests.support.running import Running, ask

PATH = "/v1/chat/completions"


class ErrorFacts(Struct, frozen=True):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class UrlCitation(Struct, frozen=True):
    url: str
    title: str


class Annotation(Struct, frozen=True):
    type: str
    url_citation: UrlCitation
    index: int | None = None


class MessageFacts(Struct, frozen=True):
    """A message, or what a delta adds to it."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    annotations: tuple[Annotation, ...] = ()


class ChoiceFacts(Struct, frozen=True):
    message: MessageFacts = MessageFacts()
    delta: MessageFacts = MessageFacts()
    finish_reason: str | None = None


class UsageFacts(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    origin: str


class ReplyBody(Struct, frozen=True):
    """A completion, a chunk of one, or an error."""

    error: ErrorFacts | None = None
    choices: tuple[ChoiceFacts, ...] = ()
    usage: UsageFacts | None = None


class Reply(Struct, frozen=True, kw_only=True):
    """What a client has in the end. `finish` is None when no finish reason came; `done`: the stream said [DONE]."""

    status: int
    headers: dict[str, str]
    text: str = ""
    reasoning: str = ""
    sources: tuple[str, ...] = ()
    finish: str | None = None
    error: ErrorFacts | None = None
    usage: UsageFacts | None = None
    done: bool = False
    comments: int = 0


def _facts(body: bytes | str) -> ReplyBody:
    return msgspec.json.decode(body, type=ReplyBody)


async def whole(gateway: Running, text: str = "hello", **fields: object) -> Reply:
    """A reply that is not streamed, good or bad."""
    async with gateway.client.post(PATH, json=ask(text, **fields)) as response:
        body = _facts(await response.read())
        headers = {name.lower(): value for name, value in response.headers.items()}
        choice = body.choices[0] if body.choices else ChoiceFacts()
        return Reply(
            status=response.status,
            headers=headers,
            text=choice.message.content or "",
            reasoning=choice.message.reasoning_content or "",
            sources=tuple(each.url_citation.url for each in choice.message.annotations),
            finish=choice.finish_reason,
            error=body.error,
            usage=body.usage,
        )


async def streamed(gateway: Running, text: str = "hello", **fields: object) -> Reply:
    """A streamed reply, read to its end; one that fails before its headers is read whole."""
    fields = {"stream_options": {"include_usage": True}} | fields
    async with gateway.client.post(PATH, json=ask(text, stream=True, **fields)) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        body = await response.text()
        if response.status != 200:
            return Reply(status=response.status, headers=headers, error=_facts(body).error)
        return _joined(body, headers)


def _joined(body: str, headers: dict[str, str]) -> Reply:
    frames = [frame for frame in body.split("\n\n") if frame]
    data = [frame.removeprefix("data: ") for frame in frames if frame.startswith("data: ")]
    done = data[-1:] == ["[DONE]"]
    chunks = [_facts(line) for line in data if line != "[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    annotations = [each for choice in choices for each in choice.delta.annotations]
    assert [each.index for each in annotations] == list(range(len(annotations)))
    return Reply(
        status=200,
        headers=headers,
        text="".join(choice.delta.content or "" for choice in choices),
        reasoning="".join(choice.delta.reasoning_content or "" for choice in choices),
        sources=tuple(each.url_citation.url for each in annotations),
        finish=next((choice.finish_reason for choice in choices if choice.finish_reason), None),
        error=next((chunk.error for chunk in chunks if chunk.error is not None), None),
        usage=next((chunk.usage for chunk in chunks if chunk.usage is not None), None),
        done=done,
        comments=sum(frame.startswith(":") for frame in frames),
    )
