"""`python -m qwen_proxy.simulator --port N`: the simulated upstream alone, until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import signal

from qwen_proxy.simulator.scenario import Scenario
from qwen_proxy.simulator.server import Simulator


async def serve(host: str, port: int, pause_seconds: float) -> None:
    """Serve until told to end, printing where."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(Scenario(pause_seconds=pause_seconds), host=host, port=port) as simulator:
        print(f"simulated upstream at {simulator.base_url}", flush=True)  # noqa: T201
        await ended.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m qwen_proxy.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8100, help="0 takes any free port")
    parser.add_argument("--pace", type=float, default=0.03, help="seconds between two words of an answer")
    options = parser.parse_args()
    asyncio.run(serve(options.host, options.port, options.pace))


if __name__ == "__main__":
    main()
