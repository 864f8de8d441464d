"""How free slots are shared out: the one rule of the stores that compute it here (Redis has it in Lua). Pure."""

from collections.abc import Sequence

from msgspec import Struct

from qwen_proxy.state.store import Hold, SlotsWanted


class Claim(Struct, frozen=True):
    """A name and how many of its slots are taken, over all processes."""

    name: str
    taken: int


def share(free: int, extra: int, processes: int) -> int:
    """How many of `extra` are granted: with others about, only a part of what is free."""
    return max(0, min(extra, free // (2 * max(0, processes - 1) + 1)))


def shared_out(claims: Sequence[Claim], wanted: SlotsWanted, processes: int) -> tuple[Hold, ...]:
    """The slots granted; see SlotsWanted. When spread, one name gets several only where the others are no emptier."""
    free = [wanted.capacity - claim.taken for claim in claims]
    total = sum(each for each in free if each > 0)
    count = min(total, wanted.need)
    count += share(total - count, wanted.extra, processes)
    granted = [0] * len(claims)
    if not wanted.is_spread:
        for index, each in enumerate(free):
            granted[index] = min(max(0, each), count)
            count -= granted[index]
    elif count:
        # Level by level: all with the fewest taken get one before any gets a second.
        level = min(claim.taken for claim, each in zip(claims, free, strict=True) if each > 0)
        while count:
            for index, claim in enumerate(claims):
                if count and claim.taken + granted[index] == level < wanted.capacity:
                    granted[index] += 1
                    count -= 1
            level += 1
    return tuple(Hold(claim.name, each) for claim, each in zip(claims, granted, strict=True) if each)
