"""chat.qwen.ai, as its own web page speaks to it."""
