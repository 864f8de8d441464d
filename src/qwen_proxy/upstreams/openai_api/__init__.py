"""OpenAI's chat completions as an upstream speaks them: what every adapter of such a server shares. Pure."""
