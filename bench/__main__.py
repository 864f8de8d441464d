"""`python -m bench`: measure the product beside a bare aiohttp proxy and nginx, print a table, keep the numbers.

Always ends with 0, so that no test depends on time; `--check` ends with 1 when a bar is missed.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from bench import hotspots, proxies, report
from bench.load import Task
from bench.proxies import Door

CHECKOUT = Path(__file__).resolve().parent.parent
PRODUCT, BARE, NGINX = "product", "bare", "nginx"

STREAM_CPU = report.Quantity("500 streams x 20 events/s: CPU", "us/event", BARE, 1.4)
STREAM_CPU_FLOOR = report.Quantity("  the same to nginx (goal)", "us/event", NGINX, 4.0)
LATE = report.Quantity("  lateness of an event, p99", "ms", None, 50.0)
LATE_MEDIAN = report.Quantity("  lateness of an event, p50", "ms")
MEMORY = report.Quantity("  memory of an open stream", "KB", None, 60.0)
FIRST = report.Quantity("  first event, proxied minus direct, p50", "ms", None, 5.0)
BURST = report.Quantity("bursts of 500 events: CPU", "us/event", BARE, 2.0)
PACKED = report.Quantity("  the same in 16 KB chunks", "us/event", BARE)
SHORT = report.Quantity("short streamed chat: CPU", "us/chat", BARE, 1.4)
CALLS = report.Quantity("  upstream calls", "a chat")
PASSED = report.Quantity("passthrough, 500 streams x 20 events/s: CPU", "us/event", NGINX, 3.5)
PASSED_LATE = report.Quantity("  lateness of an event, p99", "ms")
PASSED_SHORT = report.Quantity("passthrough, short chat in one piece: CPU", "us/chat", NGINX, 14.0)
QUANTITIES = (STREAM_CPU, STREAM_CPU_FLOOR, LATE, LATE_MEDIAN, MEMORY, FIRST, BURST, PACKED, SHORT, CALLS,
              PASSED, PASSED_LATE, PASSED_SHORT)  # fmt: skip

PASSTHROUGH = "passthrough-streams", "passthrough-shorts"
SCENARIOS = ("streams", "bursts", "packed", "shorts", *PASSTHROUGH)


class Bench:
    """One run: rounds of every scenario over every proxy, by turns."""

    def __init__(self, options: argparse.Namespace, home: Path) -> None:
        self._quick: bool = options.quick
        self._scenarios = scenarios(options.scenarios)
        self._longer = 4 if options.profile else 1  # samples are few where little is computed
        self._rounds: int = options.rounds or (1 if options.quick else 4)
        cores = sorted(os.sched_getaffinity(0))
        self._core = cores[0]
        if len(cores) == 1:
            print("one core for all: lateness and the time to the first event say little", file=sys.stderr)
        self._stacks = home / "stacks" if options.profile else None
        self._programs = proxies.Programs(
            CHECKOUT, home, cores[0], cores[-1], product=shlex.split(options.command), profile=self._stacks
        )
        left_out = {NGINX} if options.profile or not proxies.nginx() else set[str]()
        self.columns = tuple(name for name in options.proxies.split(",") if name not in left_out)
        self.measured: dict[report.Quantity, dict[str, list[float]]] = {
            quantity: {name: [] for name in self.columns} for quantity in QUANTITIES
        }
        self.raw: list[dict[str, object]] = []

    def run(self) -> None:
        for number in range(1, self._rounds + 1):
            for door in Door:
                self._round(number, door)

    def _round(self, number: int, door: Door) -> None:
        wanted = [scenario for scenario in self._scenarios if door_of(scenario) is door]
        taking_part = [name for name in self._order(number) if wanted and can_take(name, door)]
        with ExitStack() as stack:
            started: dict[str, tuple[int, int, int]] = {}
            for name in taking_part:
                # Each has an upstream of its own, whose counts are then of its calls alone.
                port, upstream_port = proxies.free_port(), proxies.free_port()
                stack.enter_context(self._programs.upstream(upstream_port))
                pid = stack.enter_context(self._programs.proxy(name, door, port, upstream_port))
                started[name] = (port, pid, upstream_port)
            # Memory first: what a process has once held it does not give back, and would hide the streams.
            for scenario in wanted:
                for name in taking_part:
                    print(f"round {number} of {self._rounds}: {scenario}, {name}", file=sys.stderr, flush=True)
                    self._measure(scenario, name, self._task(scenario, *started[name]))

    def profile(self) -> Iterator[tuple[str, str, str]]:
        """Each scenario once over each proxy, sampled: (scenario, proxy, stacks with their counts)."""
        assert self._stacks is not None
        for scenario in self._scenarios:
            door = door_of(scenario)
            for name in (name for name in self.columns if can_take(name, door)):
                self._stacks.mkdir()
                upstream_port, port = proxies.free_port(), proxies.free_port()
                with (
                    self._programs.upstream(upstream_port),
                    self._programs.proxy(name, door, port, upstream_port) as pid,
                ):
                    self._measure(scenario, name, self._task(scenario, port, pid, upstream_port))
                yield scenario, name, "".join(file.read_text() for file in self._stacks.iterdir())
                shutil.rmtree(self._stacks)

    def _order(self, number: int) -> tuple[str, ...]:
        """Another proxy begins each round, so that none always follows the same."""
        shift = number % len(self.columns)
        return self.columns[shift:] + self.columns[:shift]

    def _task(self, scenario: str, port: int, pid: int, upstream_port: int) -> Task:
        window = 2.5 if self._quick else 5.0
        short = window / 2 * self._longer
        kind = {"packed": "bursts"}.get(scenario, scenario.removeprefix("passthrough-"))
        counts, seconds = {
            "streams": (
                {"streams": 500, "rate": 20, "probe_rate": 40},
                {"ramp": 2.05, "warm": 1.0, "window": window, "probes": window * 0.8},
            ),
            "bursts": ({"streams": 8, "rate": 10, "burst": 500, "chunk": 0}, {"warm": 0.5, "window": short}),
            "packed": ({"streams": 8, "rate": 10, "burst": 500, "chunk": 16384}, {"warm": 0.5, "window": short}),
            "shorts": ({"connections": 8, "warm": 20, "each": (250 if self._quick else 1000) * self._longer}, {}),
        }[scenario.removeprefix("passthrough-")]
        return Task(
            scenario=kind, port=port, pid=pid, core=self._core, upstream_port=upstream_port, key=proxies.KEY,
            direct=door_of(scenario).target, stream=scenario != "passthrough-shorts", counts=counts, seconds=seconds,
        )  # fmt: skip

    def _measure(self, scenario: str, name: str, task: Task) -> None:
        result = json.loads(self._programs.load(msgspec.json.encode(task).decode()))
        self.raw.append({"scenario": scenario, "proxy": name, "counts": task.counts} | result)
        if failures := result["failures"]:
            print(f"  {len(failures)} failures, the first: {failures[0]}", file=sys.stderr)
        if (others := result["others"] / result["seconds"]) > 0.05:
            print(f"  others had its core for {others:.0%} of the time: the machine is not quiet", file=sys.stderr)
        if not result["events"] or result.get("proxied_ms") == {}:
            raise SystemExit(f"{name} brought no event, there is nothing to measure")

        def note(quantity: report.Quantity, value: float) -> None:
            self.measured[quantity][name].append(value)

        match scenario:
            case "streams":
                cpu = result["cpu"] / result["events"] * 1e6
                note(STREAM_CPU, cpu)
                note(STREAM_CPU_FLOOR, cpu)
                note(LATE, result["late_ms"]["p99"])
                note(LATE_MEDIAN, result["late_ms"]["p50"])
                note(MEMORY, result["rss_kb"] / task.counts["streams"])
                note(FIRST, result["proxied_ms"]["p50"] - result["direct_ms"]["p50"])
            case "bursts" | "packed":
                note(BURST if scenario == "bursts" else PACKED, result["cpu"] / result["events"] * 1e6)
            case "passthrough-streams":
                note(PASSED, result["cpu"] / result["events"] * 1e6)
                note(PASSED_LATE, result["late_ms"]["p99"])
            case "passthrough-shorts":
                note(PASSED_SHORT, result["cpu"] / result["chats"] * 1e6)
            case _:
                note(SHORT, result["cpu"] / result["chats"] * 1e6)
                note(CALLS, result["calls_per_chat"])


def scenarios(wanted: str) -> tuple[str, ...]:
    """Names by comma; `passthrough` is both of its kind."""
    names = {name for part in wanted.split(",") for name in (PASSTHROUGH if part == "passthrough" else (part,))}
    if unknown := names - set(SCENARIOS):
        raise SystemExit(f"no scenarios: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}, passthrough")
    return tuple(name for name in SCENARIOS if name in names)


def door_of(scenario: str) -> Door:
    return Door.API if scenario in PASSTHROUGH else Door.SITE


def can_take(proxy: str, door: Door) -> bool:
    """The bare proxy makes the calls of the site; to an API nginx makes the same one call."""
    return proxy != BARE or door is Door.SITE


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    packages = {name: version(name) for name in ("aiohttp", "uvloop", "msgspec", "qwen-proxy")}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": models[0].partition(": ")[2] if models else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": packages,
        "load_average_at_start": os.getloadavg(),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, about a minute, instead of five")
    parser.add_argument("--rounds", type=int, help="how many rounds (4, or 1 with --quick)")
    parser.add_argument("--proxies", default=f"{NGINX},{BARE},{PRODUCT}", help="which to measure, by comma")
    served = f"{Path(sys.executable).with_name('qwen-proxy')} serve"
    parser.add_argument("--command", default=served, help="what starts the product: another version, another wrapper")
    parser.add_argument("--profile", action="store_true", help="sample where each proxy spends its time, instead")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="which to run, by comma")
    parser.add_argument("--check", action="store_true", help="end with 1 when a bar is missed")
    parser.add_argument("--install", action="store_true", help="install nginx with apt first, as root")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.install and not proxies.nginx():
        proxies.install_nginx()
    if NGINX in options.proxies and not proxies.nginx():
        print("nginx is missing, its column is left out; `apt-get install nginx-light` or --install brings it")
    results = CHECKOUT / "bench" / "results"
    results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="qwen-proxy-bench-") as home:
        bench = Bench(options, Path(home))
        if options.profile:
            return profile(bench, results)
        facts = machine()
        bench.run()
    lines = [report.line(quantity, bench.measured[quantity], PRODUCT) for quantity in QUANTITIES]
    lines = [line for line in lines if line.medians]
    print(report.table(lines, bench.columns))
    print(f"\n{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, Python {facts['python']}")
    path = results / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    whole = {"machine": facts, "lines": [as_fields(line) for line in lines], "runs": bench.raw}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    print(path.relative_to(CHECKOUT))
    return int(options.check and any(line.is_met is False for line in lines))


def profile(bench: Bench, results: Path) -> int:
    """Print where the time goes, and keep the stacks for a flame graph."""
    for scenario, name, stacks in bench.profile():
        path = results / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{scenario}-{name}.stacks"
        path.write_text(stacks)
        print(f"\n{scenario}, {name}: {path.relative_to(CHECKOUT)}\n{hotspots.summary(stacks, 30)}")
    return 0


def as_fields(line: report.Line) -> dict[str, object]:
    """A line of the table, flat."""
    return {
        "name": line.quantity.name.strip(), "unit": line.quantity.unit, "against": line.quantity.against,
        "bar": line.quantity.bar, "medians": line.medians, "ratio": line.ratio, "is_met": line.is_met,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
