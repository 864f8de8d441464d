"""What reading costs: a call of real source code in pieces of 20 characters, in CPU time, and beside a plain pass."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PIECE_CHARACTERS = 20
ROUNDS = 5


@dataclass(frozen=True)
class Cost:
    """Of one text: the least CPU time of some rounds, and that of a loop which does nothing but look at each piece."""

    size_kb: int
    milliseconds: float
    plain_milliseconds: float

    @property
    def ratio(self) -> float:
        return self.milliseconds / self.plain_milliseconds


def cut(text: str, size: int = PIECE_CHARACTERS) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def measure(text: str, read: Callable[[Sequence[str]], object]) -> Cost:
    """`read` is handed the pieces."""
    pieces = cut(text)
    taken = min(_timed(read, pieces) for _ in range(ROUNDS))
    plain = min(_timed(_plain, pieces) for _ in range(ROUNDS))
    return Cost(len(text.encode()) // 1024, taken * 1000, plain * 1000)


def _timed(work: Callable[[Sequence[str]], object], pieces: Sequence[str]) -> float:
    start = time.process_time()
    work(pieces)
    return time.process_time() - start


def _plain(pieces: Sequence[str]) -> int:
    """Find the next line end in each piece: the least that any reader has to do."""
    return sum(piece.find("\n") for piece in pieces)


def is_linear(costs: Sequence[Cost]) -> bool:
    """Whether the time a KB at the largest size is at most half as much again as at the smallest."""
    rates = [cost.milliseconds / cost.size_kb for cost in costs]
    return rates[-1] <= rates[0] * 1.5
