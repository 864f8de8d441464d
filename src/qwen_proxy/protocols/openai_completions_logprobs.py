"""Log probabilities as OpenAI's older completions tell them. Pure.

Source: OpenAI's API reference, as typed in the openai SDK 3.54 (`completion_choice.Logprobs`).
"""

import codecs

from msgspec import Raw, Struct

from qwen_proxy.protocols.logprobs import TokenBody, tokens_of


class LogprobsPayload(Struct):
    """Of the tokens of a text; `text_offset` is the place of each in the whole text, in characters.

    A token that is no whole character is spelt by its bytes, as OpenAI spells it, so that two of them stay two.
    """

    tokens: list[str] = []
    token_logprobs: list[float] = []
    top_logprobs: list[dict[str, float]] = []
    text_offset: list[int] = []

    def add(self, logprobs: Raw, start: int) -> None:
        """start: where the text of these tokens begins. The chosen token is always among the likeliest."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens_of(logprobs):
            name = _spelt(token)
            likeliest = {name: token.logprob}
            for each in token.top_logprobs or ():
                likeliest.setdefault(_spelt(each), each.logprob)
            self.tokens.append(name)
            self.token_logprobs.append(token.logprob)
            self.top_logprobs.append(likeliest)
            self.text_offset.append(start)
            start += len(decoder.decode(token.encoded))


def _spelt(token: TokenBody) -> str:
    try:
        token.encoded.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{octet:02x}" for octet in token.encoded)
    return token.token
