import pytest

from qwen_proxy.admin.settings import Given, as_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("Table", "Table"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (0.1, "0.1"),
        (60.0, "60"),
        ({"gpt-*": "qwen3.7-plus"}, '{"gpt-*":"qwen3.7-plus"}'),
    ],
)
def test_a_value_of_json_is_as_it_would_stand_in_dotenv(value: Given, text: str | None) -> None:
    assert as_text(value) == text
