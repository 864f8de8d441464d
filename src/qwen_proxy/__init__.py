"""Qwen-Proxy: programs that speak OpenAI's or Anthropic's API, served by Qwen."""

__version__ = "0.1.0"
