"""A token counter that anyone can check by hand: a token is a word, or a run of white space between words is none."""


class WordCounter:
    """Fits `chat.counting.TokenCounter`."""

    def count(self, text: str) -> int:
        return len(text.split())

    def cut(self, text: str, tokens: int) -> str:
        end = 0
        for word in text.split()[:tokens]:
            end = text.index(word, end) + len(word)
        return text[:end]
