"""A picture or clip inside a text, for protocols whose replies have no place of their own for it. Pure."""

from qwen_proxy.chat import markdown
from qwen_proxy.chat.events import MediaKind, MediaOutput


def media_text(event: MediaOutput) -> str:
    """As Markdown."""
    mark = "![image]" if event.kind is MediaKind.IMAGE else "[video]"
    return f"\n{mark}({markdown.target(event.url)})\n"
