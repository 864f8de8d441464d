"""Records one real exchange with the upstream, redacted."""

from pathlib import Path

from msgspec import Struct

from qwen_proxy.config.settings import Settings


class Wish(Struct, frozen=True, kw_only=True):
    """model: empty takes the upstream's first. keep_text: whether what was said stays in clear."""

    prompt: str
    model: str = ""
    keep_text: bool = False


async def record(settings: Settings, wish: Wish, folder: Path, name: str) -> list[Path]:
    """Sign in with the first account, ask, and write the recording; the files written. Raises ProxyError."""
    raise NotImplementedError("recordings are wired with the recorder")
