"""What the pure rows need of a tokenizer. Pure."""

from typing import Protocol


class TokenCounter(Protocol):
    """Tokens of plain text: no text is special. A token is at least one byte, and no text but the empty has none."""

    def count(self, text: str) -> int: ...

    def cut(self, text: str, tokens: int) -> str:
        """The characters that lie wholly within the first so many tokens of the text."""
        ...
