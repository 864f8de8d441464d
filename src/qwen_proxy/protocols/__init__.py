"""What clients speak. Each file translates one protocol to and from `chat/`, and knows no other."""
