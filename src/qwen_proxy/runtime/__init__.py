"""What touches time, chance and the event loop."""
