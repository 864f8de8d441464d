"""What we call. Each adapter translates `chat/` to and from one upstream's wire, and knows no other."""
