"""One quick request through a server, for a person at a terminal."""

from collections.abc import Callable

from msgspec.structs import replace

from qwen_proxy.operations.client import Answered, Question, ServerClient


async def answer_to(
    client: ServerClient,
    question: Question,
    *,
    searches: bool,
    on_reasoning: Callable[[str], None],
    on_text: Callable[[str], None],
) -> Answered:
    """Ask, and hand on printable pieces as they come. Search is asked for by the model name's suffix.

    Raises ServerRefused, ServerSilent.
    """
    if searches:
        model = question.model or (await client.models())[0].id
        suffix = "-thinking-search" if question.thinking else "-search"
        question = replace(question, model=model if model.endswith("-search") else model + suffix)
    return await client.ask(question, lambda text: on_reasoning(printable(text)), lambda text: on_text(printable(text)))


def printable(text: str) -> str:
    """Without control characters: what a model writes must not drive the terminal."""
    return "".join(character for character in text if character in "\n\t" or character.isprintable())
