"""Stands in for `qwen_proxy.workers.llama_server`: `fake_llama.py MANNER FOLDER`, over the same input and output.

It adds the options it got to FOLDER/starts, a line each time. Manners: `well` listens; `broken` tells errors and ends,
as all do while FOLDER/broken is there; `silent` ends; `deaf` listens, and does not end with its input.
"""

import json
import socket
import sys
from pathlib import Path


def main(manner: str, folder: Path) -> None:
    line = sys.stdin.buffer.readline()
    with (folder / "starts").open("ab") as starts:
        starts.write(line)
    if manner == "broken" or (folder / "broken").exists():
        sys.stderr.write("0.00.001 I begins\n0.00.002 E model: no such architecture\n0.00.003 E more\n")
        sys.stderr.flush()
        sys.exit(3)
    if manner == "silent":
        sys.exit(4)
    port: int = json.loads(line)["port"]
    with socket.create_server(("127.0.0.1", port)) as listener:
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        sys.stderr.write("x" * 200_000 + " E told later\n")  # more than a pipe holds
        sys.stderr.flush()
        if manner == "deaf":
            listener.accept()
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
