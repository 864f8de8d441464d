"""`python -m qwen_proxy` is `qwen-proxy`."""

from qwen_proxy.cli import main

if __name__ == "__main__":
    main()
