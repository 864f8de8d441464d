"""A server of our own for a moment, in this process."""

from contextlib import AbstractAsyncContextManager

from qwen_proxy.config.credentials import LoadedKeys
from qwen_proxy.config.settings import Settings


def serve_locally(settings: Settings, keys: LoadedKeys) -> AbstractAsyncContextManager[str]:
    """Serve on a free loopback port while the block lasts; gives the address."""
    raise NotImplementedError("the local server is wired with app.py")
