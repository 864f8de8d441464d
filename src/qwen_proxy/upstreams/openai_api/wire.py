"""The shapes of an answer of chat completions, as far as they are read. Pure.

Source: OpenAI's API reference (as typed in the openai SDK 3.54), and what servers of the same protocol add or leave
out: `reasoning_content` (DashScope, vLLM, llama.cpp), `reasoning` and `images` (OpenRouter), whole arguments as an
object, calls without `index` or `id`, `null` almost anywhere.
"""

from typing import Any, Final, TypeGuard

import msgspec
from msgspec import Raw, Struct


class FunctionBody(Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None  # JSON enters here


class CallBody(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: FunctionBody | None = None


class LinkBody(Struct, gc=False):
    url: str | None = None


class ImageBody(Struct, gc=False):
    image_url: LinkBody | None = None


class CitationBody(Struct, gc=False):
    url: str | None = None
    title: str | None = None
    content: str | None = None


class AnnotationBody(Struct, gc=False):
    url_citation: CitationBody | None = None


class PartBody(Struct, gc=False):
    text: str | None = None


class DeltaBody(Struct, gc=False):
    """A delta of a stream, or the message of a whole answer."""

    content: str | list[PartBody] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[CallBody] | None = None
    function_call: FunctionBody | None = None
    images: list[ImageBody] | None = None
    annotations: list[AnnotationBody] | None = None


class LogprobsBody(Struct, gc=False):
    content: list[Raw] | None = None


class ChoiceBody(Struct, gc=False):
    index: int | None = None
    delta: DeltaBody | None = None
    message: DeltaBody | None = None
    logprobs: LogprobsBody | None = None
    finish_reason: str | None = None


class PromptDetailsBody(Struct, gc=False):
    cached_tokens: int | None = None


class CompletionDetailsBody(Struct, gc=False):
    reasoning_tokens: int | None = None


class UsageBody(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetailsBody | None = None
    completion_tokens_details: CompletionDetailsBody | None = None


class ReplyBody(Struct, gc=False):
    """A chunk of a stream, or a whole answer."""

    id: str | None = None
    choices: list[ChoiceBody] | None = None
    usage: UsageBody | None = None
    error: Raw = Raw()


decode_reply: Final = msgspec.json.Decoder(ReplyBody).decode


def text_of(parts: list[PartBody]) -> str:
    return "".join([part.text or "" for part in parts])


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def members(value: object) -> dict[str, object]:
    """The members of a JSON object; none of anything else."""
    return value if is_object(value) else {}


def word(value: object) -> str:
    return value if isinstance(value, str) else ""


def count(value: object) -> int | None:
    """A number of tokens, or of seconds: whole and above 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
