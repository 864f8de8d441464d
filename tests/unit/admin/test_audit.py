from qwen_proxy.admin.audit import MOST_DETAIL_CHARS, Author, audit_line, audit_log
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock

BY = Author(key_id="key_1", key_name="key-1", address="203.0.113.5", request_id="req_1")


async def test_lines_come_newest_first_by_page() -> None:
    store = MemoryStore(FakeClock())
    for number in range(3):
        await store.write([audit_line(BY, "account.delete", f"{number}@example.com")])
    newest, middle = await audit_log(store, before=None, limit=2)
    assert (newest.line.target, middle.line.target) == ("2@example.com", "1@example.com")
    assert (newest.line.by, newest.line.action, newest.at) == (BY, "account.delete", FakeClock().now())
    (oldest,) = await audit_log(store, before=middle.number, limit=2)
    assert oldest.line.target == "0@example.com"


async def test_details_are_texts_without_secrets_and_of_bounded_length() -> None:
    store = MemoryStore(FakeClock())
    details = {"proxy": "http://user:canary@127.0.0.1:1", "labels": ("a",), "note": None, "long": "x" * 5000}
    await store.write([audit_line(BY, "account.change", details=details)])
    (entry,) = await audit_log(store, before=None, limit=1)
    assert entry.line.details == {
        "proxy": "http://***@127.0.0.1:1",
        "labels": "('a',)",
        "long": "x" * MOST_DETAIL_CHARS,
    }
