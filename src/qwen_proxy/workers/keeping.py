"""The supervisor's ear for one worker."""

from collections.abc import Callable, Sequence

from qwen_proxy.workers.messages import (
    DriftCount,
    DriftSeen,
    FromSupervisor,
    FromWorker,
    Ready,
    Survey,
    Surveyed,
    SurveyWanted,
)


class Desk:
    """Answers one worker's questions, and keeps what it has told."""

    def __init__(
        self, send: Callable[[FromSupervisor], None], ready: Callable[[], None], survey: Callable[[], Survey]
    ) -> None:
        self._send = send
        self._ready = ready
        self._survey = survey
        self.drift: Sequence[DriftCount] = ()

    def received(self, message: FromWorker) -> None:
        match message:
            case SurveyWanted():
                self._send(Surveyed(message.number, self._survey()))
            case DriftSeen():
                self.drift = message.counts
            case Ready():
                self._ready()
