"""Every kind of record there is. A kind's documents are read and written through a `state.collection.Collection`."""

from typing import Final

from qwen_proxy.state.store import Kind

VAULT: Final = Kind(name="vault")  # the keys that seal the others, wrapped: see state/vault.py
ACCOUNT: Final = Kind(name="account", is_watched=True, is_sealed=True)
HEALTH: Final = Kind(name="health", is_watched=True, is_flushed=False)
EXIT: Final = Kind(name="exit", is_watched=True, is_flushed=False)
KEY: Final = Kind(name="key", is_watched=True)
SETTINGS: Final = Kind(name="settings", is_watched=True, is_sealed=True)
SESSION: Final = Kind(name="session")
BATCH: Final = Kind(name="batch", is_watched=True)
BATCH_LINE: Final = Kind(name="batch_line", is_sealed=True)
BACKEND: Final = Kind(name="backend", is_watched=True, is_sealed=True)
BACKEND_KEY: Final = Kind(name="backend_key", is_watched=True)  # the health of a backend's API key
TRACE: Final = Kind(name="trace", is_flushed=False)
# Of /v1/responses (api/stored_responses.py): what is kept of each, those under way in the background, and their events.
RESPONSE: Final = Kind(name="response", is_sealed=True, is_flushed=False)
RESPONSE_JOB: Final = Kind(name="response_job", is_flushed=False)
RESPONSE_EVENTS: Final = Kind(name="response_events", is_sealed=True, is_flushed=False)
GRANT: Final = Kind(name="grant", is_watched=True, is_sealed=True)  # a sign-in by OAuth
GRANT_WISH: Final = Kind(name="grant_wish", is_sealed=True)  # one that waits for its owner

KINDS: Final = (
    VAULT,
    ACCOUNT,
    HEALTH,
    EXIT,
    KEY,
    SETTINGS,
    SESSION,
    BATCH,
    BATCH_LINE,
    BACKEND,
    BACKEND_KEY,
    TRACE,
    RESPONSE,
    RESPONSE_JOB,
    RESPONSE_EVENTS,
)
