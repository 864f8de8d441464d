"""What a delta's `extra` carries: thoughts, search results, pictures. Pure, and tolerant of any shape.

Source: upstream protocol §4.5, §5.1, §6.1 and §6.3.
"""

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from msgspec import Raw

from qwen_proxy.chat.events import Source
from qwen_proxy.upstreams.qwen_web.wire import is_array, items, loads, members, text

MEDIA_HOST: Final = "cdn.qwenlm.ai"
MEDIA_DOMAINS: Final = (".alicdn.com", ".aliyuncs.com")


def read_extra(raw: Raw) -> dict[str, object]:
    """The members of an `extra` that the frame's decoder has found to be JSON; none of `null`."""
    return members(loads(bytes(raw))) if len(bytes(raw)) > 2 else {}


def thoughts(extra: dict[str, object]) -> list[str] | None:
    """The snapshot of all reasoning so far, an element each; None when there is none in it (§4.5)."""
    content = members(extra.get("summary_thought")).get("content")
    if isinstance(content, str):
        return [content]
    return [text(item) for item in content] if is_array(content) else None


def sources(extra: dict[str, object]) -> Iterator[Source]:
    """Search results of both carriers, in their order (§5.1). Only http(s) addresses."""
    for item in (*items(extra.get("web_search_info")), *items(members(extra.get("tool_result")).get("docs"))):
        site = members(item)
        url = text(site.get("url"))
        if url.startswith(("https://", "http://")):
            yield Source(
                url=url,
                title=text(site.get("title")),
                snippet=text(site.get("snippet")),
                site=text(site.get("hostname")),
                date=text(site.get("date")).strip(" ()"),
            )


def image_urls(extra: dict[str, object]) -> Iterator[str]:
    """Addresses of pictures in every carrier that was seen, accepted or not (§6.1)."""
    wanx = members(extra.get("wanx"))
    for item in (*items(extra.get("image_list")), *items(wanx.get("image_list")), *items(extra.get("images"))):
        entry = members(item)
        yield text(item) or text(entry.get("image")) or text(entry.get("url"))
    yield text(extra.get("image_url"))


def is_media_url(url: str) -> bool:
    """Whether a result may be handed on: https on the upstream's media hosts, no challenge link (§6.3)."""
    if "_____tmd_____" in url or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    is_ours = host == MEDIA_HOST or host.endswith(MEDIA_DOMAINS)
    return parts.scheme == "https" and is_ours and port in (None, 443) and "@" not in parts.netloc
