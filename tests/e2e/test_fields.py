"""What becomes of each field that clients send, as docs/fields.md tells it."""

from qwen_proxy.protocols.table import PROTOCOLS
from tests.support.fields import PAGE, SPOKEN, whole_page

TOLD_ELSEWHERE = {"/api/generate", "/v1beta/models/{model}:streamGenerateContent"}  # as their neighbours


def test_every_protocol_is_on_the_page() -> None:
    paths = {spoken.path for spoken in SPOKEN}
    assert {route.path for route in PROTOCOLS} - TOLD_ELSEWHERE <= paths


async def test_the_page_tells_what_is_seen_on_a_running_server() -> None:
    assert (await whole_page()).splitlines() == PAGE.read_text().splitlines()
