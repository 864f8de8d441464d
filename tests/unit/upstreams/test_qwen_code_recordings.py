"""Every recording of Qwen Code's service gives what is written beside it."""

import pytest

from qwen_proxy.chat.events import Finish
from qwen_proxy.chat.grammar import Grammar
from tests.recordings.decoding import QWEN_CODE_FOLDER, Recording, qwen_code_recordings, written

ALL = qwen_code_recordings()
ENDED = "CredentialRejected: Qwen Code's free tier ended"


@pytest.mark.parametrize("recording", ALL, ids=lambda recording: recording.name)
def test_a_recording_decodes_to_what_is_expected(recording: Recording) -> None:
    assert written(recording.decode([recording.body])) == recording.expected_path.read_bytes()


@pytest.mark.parametrize("recording", ALL, ids=lambda recording: recording.name)
def test_a_reply_ends_with_a_finish_or_an_error_in_legal_order(recording: Recording) -> None:
    found = recording.decode([recording.body])
    grammar = Grammar()
    grammar.feed(found.events)
    assert (found.error is None) == any(isinstance(event, Finish) for event in found.events)
    if found.error is None:
        grammar.finish()


def test_every_form_of_a_refused_token_is_one_and_nothing_else_is() -> None:
    refused = {each.name for each in ALL if (each.decode([each.body]).error or "").startswith(ENDED)}
    assert refused == {each.name for each in ALL if each.name.startswith(("expired", "access_denied"))}


def test_no_expectation_stands_without_its_recording() -> None:
    assert {path.name.split(".")[0] for path in QWEN_CODE_FOLDER.iterdir()} == {recording.name for recording in ALL}
