"""What a key may spend a day on backends that are paid for: reserved for each try there, settled when it has ended."""

from collections.abc import Callable

from qwen_proxy.gateway.sizing import Size
from qwen_proxy.ground.errors import KeyLimitReached, LimitTooSmall
from qwen_proxy.ground.limits import LimitFacts, LimitName
from qwen_proxy.state.allowances import Allowance, Allowances, AllowanceSpent, Share, Standing, Want

NAME = LimitName.API_TOKENS_PER_DAY


class ApiBudget:
    """Of one request. size: of all its replies; each of them makes its tries, and reserves for itself.

    token_reserve: for a reply whose length the client does not limit. facts: of the key's other limits.
    """

    def __init__(
        self,
        allowances: Allowances,
        allowance: Allowance,
        size: Callable[[], Size],
        token_reserve: int,
        facts: Callable[[], LimitFacts],
    ) -> None:
        self._allowances = allowances
        self._allowance = allowance
        self._size = size
        self._token_reserve = token_reserve
        self._facts = facts

    @property
    def prompt_tokens(self) -> int:
        """Of one try, estimated."""
        return self._size().one_prompt_tokens

    async def reserve(self) -> Share:
        """For one try. Raises KeyLimitReached, StoreUnavailable."""
        size, limit = self._size(), self._allowance.limit
        prompt_tokens = size.one_prompt_tokens
        if prompt_tokens > limit:
            raise LimitTooSmall(NAME, limit, prompt_tokens, facts=self._facts())
        reply_tokens = self._token_reserve if size.reply_tokens is None else size.reply_tokens
        amount = min(prompt_tokens + reply_tokens, limit)
        try:
            (share,) = await self._allowances.reserve([Want(self._allowance, amount)])
        except AllowanceSpent as spent:
            left = spent.standing
            raise KeyLimitReached(
                NAME, left.limit, left.limit - left.remaining, amount, facts=self._facts(), resets_at=left.ends_at
            ) from None
        return share

    def settle(self, share: Share, tokens: int) -> None:
        """So much was used in fact."""
        self._allowances.correct(share, tokens)

    def standing(self) -> Standing:
        """As far as this process knows."""
        return self._allowances.standing(self._allowance)
