"""Log probabilities as Gemini's API tells them: `logprobsResult` and `avgLogprobs` of a candidate. Pure.

Source: the API reference, as typed in the google-genai SDK 3.4 (`types.LogprobsResult`). What a token is called in the
model's vocabulary (`tokenId`) no upstream tells.
"""

from collections.abc import Sequence

from msgspec import Raw

from qwen_proxy.protocols.logprobs import ChosenBody, TokenBody, tokens_of


class LogprobsTeller:
    """Of one candidate: `result` of each piece of its text, `average` at its end."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._tokens = 0

    def result(self, logprobs: Raw | None) -> dict[str, object]:
        """Members of a candidate; none where nothing is known."""
        tokens = tokens_of(logprobs)
        if not tokens:
            return {}
        total = sum(token.logprob for token in tokens)
        self._sum += total
        self._tokens += len(tokens)
        return {"logprobsResult": _result(tokens, total)}

    def average(self) -> dict[str, object]:
        """Members of a candidate that is whole."""
        return {"avgLogprobs": self._sum / self._tokens} if self._tokens else {}


def _result(tokens: Sequence[ChosenBody], total: float) -> dict[str, object]:
    told: dict[str, object] = {
        "chosenCandidates": [_candidate(token) for token in tokens],
        "logProbabilitySum": total,
    }
    if any(token.top_logprobs for token in tokens):
        tops = [{"candidates": [_candidate(each) for each in token.top_logprobs or ()]} for token in tokens]
        told["topCandidates"] = tops
    return told


def _candidate(token: TokenBody) -> dict[str, object]:
    return {"token": token.token, "logProbability": token.logprob}
