"""Markdown out of what others wrote."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from qwen_proxy.chat.markdown import label, link, target


def test_a_label_is_one_line_with_its_marks_escaped():
    assert label(" a | [b]\r\n\u2028`c` *d* _e_ <f> \\ ") == "a \\| \\[b\\] \\`c\\` \\*d\\* \\_e\\_ \\<f\\> \\\\"


def test_a_target_keeps_what_is_harmless_and_encodes_what_could_end_it():
    assert target("https://x.example/ü?a=b&c=%20#d") == "https://x.example/ü?a=b&c=%20#d"
    assert target("https://x.example/(a) b\u2028|") == "https://x.example/%28a%29%20b%E2%80%A8%7C"


def test_only_web_addresses_become_links():
    assert link("a", "HTTPS://x.example") == "[a](HTTPS://x.example)"
    assert link("a|b", "javascript:alert(1)") == "a\\|b"


@given(st.text(), st.text())
@example("](", ")")
def test_a_link_stays_one_line_and_one_link(text: str, url: str):
    made = link(text, f"https://{url}")
    assert len(made.splitlines()) == 1
    unescaped = re.sub(r"\\.", "", made)
    assert re.fullmatch(r"\[[^\[\]|]*\]\([^()|\s]*\)", unescaped)
