"""A chat request in our own words."""

from enum import StrEnum
from typing import Any, Final

from msgspec import Raw, Struct, structs

from qwen_proxy.chat.models import ModelName


class Role(StrEnum):
    """Who speaks. OpenAI's `developer` is SYSTEM; a tool's result is a part of a USER message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class TextPart(Struct, frozen=True, tag="text"):
    text: str


class _Attached(Struct, frozen=True):
    """`place`, its last field, is the path by which the client's body has it, for errors: it makes no difference."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and structs.astuple(self)[:-1] == structs.astuple(other)[:-1]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(structs.astuple(self)[:-1])


class ImagePart(_Attached, frozen=True, tag="image", eq=False):
    """`url` is http(s) or a data URI. detail: OpenAI's word for how closely it is looked at; empty: nobody says."""

    url: str
    detail: str = ""
    place: str = ""


class FilePart(_Attached, frozen=True, tag="file", eq=False):
    """A document, audio or video. `url` is http(s) or a data URI; `kind` is `document`, `audio` or `video`."""

    kind: str
    url: str
    name: str = ""
    place: str = ""


class ReasoningPart(Struct, frozen=True, tag="reasoning"):
    """What an assistant thought in an earlier turn."""

    text: str
    signature: str | None = None


class ToolCallPart(Struct, frozen=True, tag="tool_call"):
    """`arguments` is the JSON text as it stands in the history."""

    call_id: str
    name: str
    arguments: str


class ToolResultPart(Struct, frozen=True, tag="tool_result"):
    call_id: str
    parts: tuple[TextPart | ImagePart, ...]
    is_error: bool = False


Part = TextPart | ImagePart | FilePart | ReasoningPart | ToolCallPart | ToolResultPart


class Message(Struct, frozen=True):
    role: Role
    parts: tuple[Part, ...]


def text_of(message: Message) -> str:
    """The text parts of a message, one after the other with a line feed between."""
    return "\n".join(part.text for part in message.parts if isinstance(part, TextPart))


class Tool(Struct, frozen=True):
    """`parameters` is a JSON Schema as the client sent it: hostile input."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None  # JSON enters here
    strict: bool = False


class ToolChoiceKind(StrEnum):
    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


class ToolChoice(Struct, frozen=True):
    """`names` limits the choice to those tools; with REQUIRED and one name it is a named function."""

    kind: ToolChoiceKind = ToolChoiceKind.AUTO
    names: tuple[str, ...] = ()


AUTO: Final = ToolChoice()


class Sampling(Struct, frozen=True, kw_only=True):
    """None is: the client did not say. `stop` and `max_tokens` are enforced here where the upstream does not.

    logprobs_field: the client's name for log probabilities, for a refusal; empty where it is that of the member here.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    logprobs_field: str = ""

    @property
    def is_limited(self) -> bool:
        """Whether the text may have to be cut."""
        return bool(self.stop) or self.max_tokens is not None


class Reasoning(Struct, frozen=True, kw_only=True):
    """What the client wants of thinking. `enabled` None leaves it to the model name; a budget is in tokens.

    effort: the client's own word (`low`, `high`, ...), for upstreams that know such words.
    """

    enabled: bool | None = None
    budget_tokens: int | None = None
    effort: str | None = None


class OutputFormat(Struct, frozen=True, kw_only=True):
    """The reply has to be one JSON value: of this schema (hostile input), or, without one, any object.

    strict: the client was promised that the schema holds.
    """

    schema: dict[str, Any] | None = None  # JSON enters here
    name: str = ""
    description: str = ""
    strict: bool = False


class ChatRequest(Struct, frozen=True, kw_only=True):
    """The question. How the reply is wanted (streamed or not) is not a part of it.

    extra: fields of the client's body that are not ours, for upstreams of the same protocol (`forwards_fields`).
    hint: what a further try tells the model about the one before; empty in the first.
    taught: the names of tools that the messages themselves tell of (`tools` is empty then): an upstream that sees a
    call of one, apart from the text, hands it on.
    """

    model: ModelName
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = AUTO
    parallel_tool_calls: bool = True
    sampling: Sampling = Sampling()
    reasoning: Reasoning = Reasoning()
    output: OutputFormat | None = None
    extra: dict[str, Raw] = {}
    hint: str = ""
    taught: frozenset[str] = frozenset()

    @property
    def thinking(self) -> bool:
        """Whether to think: what the client said, else what the model name says."""
        wish = self.reasoning.enabled
        return self.model.variant.thinking if wish is None else wish
