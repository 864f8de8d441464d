"""What a delta's `extra` carries, in every shape it may take."""

import pytest
from msgspec import Raw

from qwen_proxy.chat.events import Source
from qwen_proxy.upstreams.qwen_web.extras import image_urls, is_media_url, read_extra, sources, thoughts


@pytest.mark.parametrize("raw", [b"null", b"{}", b"[]", b"3"])
def test_an_extra_without_members(raw: bytes) -> None:
    assert read_extra(Raw(raw)) == {}


@pytest.mark.parametrize(
    ("summary", "snapshot"),
    [
        (None, None),
        ("x", None),
        ({"content": None}, None),
        ({"content": "one"}, ["one"]),
        ({"content": ["one", 2, "three"]}, ["one", "", "three"]),
    ],
)
def test_thoughts(summary: object, snapshot: list[str] | None) -> None:
    assert thoughts({"summary_thought": summary}) == snapshot


def test_sources_need_an_address_and_nothing_else() -> None:
    found: dict[str, object] = {
        "web_search_info": [{"url": "https://a", "date": " (2026-06-09)"}, {"url": "ftp://b"}, {}, "x"],
        "tool_result": {"docs": [{"url": "http://c", "title": "C", "snippet": "s", "hostname": "c"}]},
    }
    assert list(sources(found)) == [Source(url="https://a", date="2026-06-09"), Source("http://c", "C", "s", "c")]
    assert list(sources({"web_search_info": {}, "tool_result": "x"})) == []


def test_pictures_of_every_carrier() -> None:
    found: dict[str, object] = {
        "image_list": [{"image": "1"}],
        "wanx": {"image_list": [{"url": "2"}]},
        "images": ["3", {"url": "4"}],
        "image_url": "5",
    }
    assert list(image_urls(found)) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("https://cdn.qwenlm.ai/output/a.png?key=x", True),
        ("https://cdn.qwenlm.ai:443/a", True),
        ("https://wanx.alicdn.com/a", True),
        ("https://b.oss-ap-southeast-1.aliyuncs.com/a", True),
        ("http://cdn.qwenlm.ai/a", False),
        ("https://cdn.qwenlm.ai:8443/a", False),
        ("https://cdn.qwenlm.ai:port/a", False),
        ("https://cdn.qwenlm.ai.evil.example/a", False),
        ("https://evilalicdn.com/a", False),
        ("https://x@cdn.qwenlm.ai/a", False),
        ("https://cdn.qwenlm.ai\\@evil.example/a", False),
        ("https://cdn.qwenlm.ai/a b", False),
        ("https://cdn.qwenlm.ai/a\n", False),
        ("https://cdn.qwenlm.ai/\u00e9", False),
        ("https://cdn.qwenlm.ai/_____tmd_____/punish", False),
        ("https://[cdn.qwenlm.ai/a", False),
        ("//cdn.qwenlm.ai/a", False),
        ("a cat", False),
    ],
)
def test_only_the_media_hosts_are_believed(url: str, is_ours: bool) -> None:
    assert is_media_url(url) is is_ours
