"""Which line is next."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qwen_proxy.accounts.bulk.queue import LineQueue

BATCHES = ("batch_1", "batch_2")
EXITS = ("", "http://a", "http://b")


def test_the_oldest_batch_and_the_lowest_number_whose_exit_is_idle_go_first():
    queue = LineQueue()
    for batch, number, exit in [("2", 1, ""), ("1", 9, ""), ("1", 3, "p"), ("1", 4, "p"), ("2", 2, "q")]:
        queue.add(batch, number, exit)
    assert [queue.take(0.0) for _ in range(4)] == [("1", 3, "p"), ("1", 9, ""), ("2", 2, "q"), None]
    queue.free("p")
    assert queue.take(0.0) == ("1", 4, "p")
    assert (queue.waiting("1"), queue.waiting("2"), queue.waiting("3")) == (0, 1, 0)


def test_a_line_that_has_to_wait_lets_others_of_its_exit_go_first():
    queue = LineQueue()
    queue.add("1", 1, "", at=50.0)
    queue.add("1", 2, "")
    assert queue.next_at() == 50.0
    assert queue.take(0.0) == ("1", 2, "")
    queue.free("")
    assert queue.take(49.0) is None and queue.take(50.0) == ("1", 1, "")
    assert queue.next_at() is None


def test_what_was_dropped_does_not_come_up_and_what_is_added_again_does_once():
    queue = LineQueue()
    queue.add("1", 1, "")
    queue.add("1", 2, "", at=10.0)
    queue.add("2", 1, "")
    queue.drop("1")
    queue.drop("3")
    assert queue.take(20.0) == ("2", 1, "")
    queue.add("1", 1, "")
    queue.free("")
    assert queue.take(20.0) == ("1", 1, "")
    queue.free("")
    assert queue.take(20.0) is None


@dataclass
class Naive:
    """batch and number -> exit, and the time before which it does not come up."""

    waiting: dict[tuple[str, int], tuple[str, float]] = field(default_factory=dict[tuple[str, int], tuple[str, float]])
    busy: set[str] = field(default_factory=set[str])


class QueueMachine(RuleBasedStateMachine):
    """Against a plain list, where nothing that was dropped is given back with another delay."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = LineQueue()
        self.naive = Naive()
        self.now = 1.0
        self.numbers: dict[str, int] = {"batch_1": 0, "batch_2": 0}

    @rule(batch=st.sampled_from(BATCHES), exit=st.sampled_from(EXITS), wait=st.sampled_from([0, 0, 3, 5]))
    def add(self, batch: str, exit: str, wait: int) -> None:
        self.numbers[batch] += 1
        at = self.now + wait if wait else 0.0
        self.queue.add(batch, self.numbers[batch], exit, at)
        self.naive.waiting[batch, self.numbers[batch]] = (exit, at)

    @precondition(lambda self: bool(self.naive.waiting))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        batch, number = data.draw(st.sampled_from(sorted(self.naive.waiting)))
        exit, at = self.naive.waiting[batch, number]
        self.queue.add(batch, number, exit, at)

    @rule(batch=st.sampled_from(BATCHES))
    def drop(self, batch: str) -> None:
        self.queue.drop(batch)
        for place in [place for place in self.naive.waiting if place[0] == batch]:
            del self.naive.waiting[place]

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        ready = [
            (*place, exit)
            for place, (exit, at) in sorted(self.naive.waiting.items())
            if at <= self.now and exit not in self.naive.busy
        ]
        assert self.queue.take(self.now) == (ready[0] if ready else None)
        if ready:
            del self.naive.waiting[ready[0][:2]]
            self.naive.busy.add(ready[0][2])

    @rule(exit=st.sampled_from(EXITS))
    def free(self, exit: str) -> None:
        self.queue.free(exit)
        self.naive.busy.discard(exit)

    @invariant()
    def counts(self) -> None:
        for batch in BATCHES:
            assert self.queue.waiting(batch) == sum(place[0] == batch for place in self.naive.waiting)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
