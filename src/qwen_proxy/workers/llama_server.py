"""llama.cpp's own HTTP server as a process of its own: `python -m qwen_proxy.workers.llama_server`.

Its input is one line, LlamaOptions as JSON: a key in arguments or the environment could be seen. It answers with one
line, the address it listens on, once the model is loaded. What llama.cpp has to tell goes to its errors. It ends when
its input does, so that it never outlives whoever started it.
"""

import importlib
import os
import sys

import msgspec
from msgspec import Struct

PACKAGE = "xllamacpp"


class LlamaOptions(Struct, frozen=True, kw_only=True):
    """model: the id it answers to. port: 0 takes a free one. context_tokens: of each of the `slots` requests that are
    answered at a time. threads: 0 is left to llama.cpp."""

    path: str
    model: str
    key: str
    port: int = 0
    context_tokens: int
    slots: int
    threads: int

    def __repr__(self) -> str:
        return f"LlamaOptions({self.model!r}, port={self.port})"


def main() -> None:
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else gets between
    options = msgspec.json.decode(sys.stdin.buffer.readline(), type=LlamaOptions)
    llama = importlib.import_module(PACKAGE)
    params = llama.CommonParams()
    params.model.path = options.path
    params.model_alias = {options.model}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.api_keys = [options.key]  # other users of this machine reach loopback too
    params.ui = False
    params.endpoint_slots = False
    params.n_parallel = options.slots
    params.n_ctx = options.context_tokens * options.slots
    params.cache_ram_mib = 0  # prompts stay in their slot; nothing grows beside the model
    params.use_jinja = True  # the model's own template: tools and thinking
    if options.threads:
        params.cpuparams.n_threads = options.threads
    server = llama.Server(params)  # returns when it listens, raises RuntimeError
    told.write(f"{server.listening_address}\n")
    told.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # whoever asked is gone: no generation is worth waiting for


if __name__ == "__main__":
    main()
