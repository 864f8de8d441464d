"""Tool calls by prompt: offered to a model in its prompt, and read back out of its text. Pure."""
