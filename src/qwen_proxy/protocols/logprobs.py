"""Log probabilities of a text's tokens, for the protocols that tell them in a shape of their own. Pure.

Our events have them as OpenAI's chat completions do (`logprobs.content`), in an upstream's own writing: what is not of
that shape tells nothing.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct, field

from qwen_proxy.protocols import bodies


class TokenBody(Struct, gc=False):
    """`octets` are the token's own bytes: a token may be a part of a character."""

    token: str
    logprob: float
    octets: list[Annotated[int, Meta(ge=0, le=255)]] | None = field(name="bytes", default=None)

    @property
    def encoded(self) -> bytes:
        return self.token.encode(errors="replace") if self.octets is None else bytes(self.octets)


class ChosenBody(TokenBody, gc=False):
    """The token that stands in the text, and the likeliest ones at its place."""

    top_logprobs: list[TokenBody] | None = None


_TOKENS: Final = msgspec.json.Decoder(list[ChosenBody])


def tokens_of(logprobs: Raw | None) -> list[ChosenBody]:
    return [] if logprobs is None else bodies.read(logprobs, _TOKENS) or []
