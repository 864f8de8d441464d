"""Every client protocol we serve: the routes, the errors and the conformance tests follow from these lines.

A path may have places with a name, as aiohttp writes them: `/v1beta/models/{model}:generateContent`. What stood there
comes to `parse` as `Incoming.variables`; whether a reply is streamed may follow from `Incoming.path` as well as from
the body, since it is the call that says so.
"""

from typing import Final

from msgspec import Struct

from qwen_proxy.protocols.anthropic_messages import AnthropicCount, AnthropicMessages
from qwen_proxy.protocols.anthropic_models import AnthropicModels
from qwen_proxy.protocols.base import ClientProtocol, CountProtocol, Dialect, ModelsProtocol, ShowProtocol
from qwen_proxy.protocols.gemini import GeminiArray, GeminiCount, GeminiEvents, GeminiGenerate
from qwen_proxy.protocols.gemini_models import GeminiModels
from qwen_proxy.protocols.ollama import (
    NOTHING_RUNS_BODY,
    VERSION_BODY,
    OllamaChat,
    OllamaGenerate,
    OllamaModels,
)
from qwen_proxy.protocols.openai_chat import OpenAIChat
from qwen_proxy.protocols.openai_completions import OpenAICompletions
from qwen_proxy.protocols.openai_models import OpenAIModels
from qwen_proxy.protocols.openai_responses import OpenAIResponses


class ProtocolRoute(Struct, frozen=True):
    """`name` is for logs and tests; the protocol is served at POST `path`. word: as keys are limited to it.

    query: where it is named, as in `alt=sse`, only requests with that in their query are meant. Of routes with one
    path, the last one has none. also: another path for the same.
    is_kept: its replies are stored (api.responses).
    """

    name: str
    path: str
    word: str
    protocol: ClientProtocol
    query: str = ""
    also: str = ""
    is_kept: bool = False


class CountRoute(Struct, frozen=True):
    """Served at POST `path`. also: another path for the same."""

    name: str
    path: str
    word: str
    protocol: CountProtocol
    also: str = ""


class ModelsRoute(Struct, frozen=True):
    """The whole list is served at GET `path`, one model at GET `one_path`, which has a place `{id}`; empty: nowhere.

    header: where it is named, only requests that have this header are meant. Of routes with one path, the last one
    has none.
    """

    name: str
    path: str
    one_path: str
    protocol: ModelsProtocol
    header: str = ""


class ShowRoute(Struct, frozen=True):
    """One model, which the body names, is told of at POST `path`."""

    name: str
    path: str
    protocol: ShowProtocol


class FixedRoute(Struct, frozen=True):
    """`body`, which is JSON, is the answer at GET `path`."""

    path: str
    word: str
    dialect: Dialect
    body: bytes


class RefusedRoute(Struct, frozen=True):
    """Clients know POST `path`; it is refused with a 501, as there are no `what` here. instead: a clause."""

    path: str
    word: str
    dialect: Dialect
    what: str
    instead: str


class Area(Struct, frozen=True):
    """Paths that are a protocol's own: what no route there takes is refused in its words. prefix: ends with a slash."""

    prefix: str
    dialect: Dialect

    def has(self, path: str) -> bool:
        return path.startswith(self.prefix) or path == self.prefix[:-1]


AREAS: Final = (
    Area("/v1/messages/", AnthropicModels()),
    Area("/v1beta/", GeminiModels()),
    Area("/upload/v1beta/", GeminiModels()),
    Area("/api/", OllamaModels()),
)

KEY_IN_QUERY: Final = ("/v1beta/", "/v1/models/")  # beginnings of paths; Gemini's API takes a key there, no other does

# gemini-cli asks the first of these versions, Google's SDKs the second.
_GEMINI: Final = ("/v1beta/models/{model}", "/v1/models/{model}")
_GENERATE, _STREAM, _COUNT = (
    tuple(model + method for model in _GEMINI)
    for method in (":generateContent", ":streamGenerateContent", ":countTokens")
)

PROTOCOLS: Final = (
    ProtocolRoute("openai_chat", "/v1/chat/completions", "chat", OpenAIChat()),
    ProtocolRoute("anthropic_messages", "/v1/messages", "messages", AnthropicMessages()),
    ProtocolRoute("openai_completions", "/v1/completions", "completions", OpenAICompletions()),
    ProtocolRoute("openai_responses", "/v1/responses", "responses", OpenAIResponses(), is_kept=True),
    ProtocolRoute("gemini", _GENERATE[0], "gemini", GeminiGenerate(), also=_GENERATE[1]),
    ProtocolRoute("gemini_events", _STREAM[0], "gemini", GeminiEvents(), query="alt=sse", also=_STREAM[1]),
    ProtocolRoute("gemini_array", _STREAM[0], "gemini", GeminiArray(), also=_STREAM[1]),
    ProtocolRoute("ollama_chat", "/api/chat", "ollama", OllamaChat()),
    ProtocolRoute("ollama_generate", "/api/generate", "ollama", OllamaGenerate()),
)

COUNTERS: Final = (
    CountRoute("anthropic_count", "/v1/messages/count_tokens", "messages", AnthropicCount()),
    CountRoute("gemini_count", _COUNT[0], "gemini", GeminiCount(), also=_COUNT[1]),
)

MODEL_LISTS: Final = (
    ModelsRoute("anthropic", "/v1/models", "/v1/models/{id}", AnthropicModels(), header="anthropic-version"),
    ModelsRoute("gemini_v1", "/v1/models", "/v1/models/{id}", GeminiModels(), header="x-goog-api-key"),
    ModelsRoute("openai", "/v1/models", "/v1/models/{id}", OpenAIModels()),
    ModelsRoute("gemini", "/v1beta/models", "/v1beta/models/{id}", GeminiModels()),
    ModelsRoute("ollama", "/api/tags", "", OllamaModels()),
)

SHOWN: Final = (ShowRoute("ollama_show", "/api/show", OllamaModels()),)

FIXED: Final = (
    FixedRoute("/api/version", "ollama", OllamaModels(), VERSION_BODY),
    FixedRoute("/api/ps", "ollama", OllamaModels(), NOTHING_RUNS_BODY),
)

_EMBEDDINGS: Final = (
    "embeddings",
    "none of its upstreams makes any; ask a server that does, such as Model Studio (/compatible-mode/v1/embeddings),"
    " Ollama or llama.cpp with an embedding model, at its own address",
)

REFUSED: Final = (
    RefusedRoute("/v1/embeddings", "embeddings", OpenAIModels(), *_EMBEDDINGS),
    RefusedRoute("/api/embed", "embeddings", OllamaModels(), *_EMBEDDINGS),
    RefusedRoute("/api/embeddings", "embeddings", OllamaModels(), *_EMBEDDINGS),
)
