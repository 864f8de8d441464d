"""Many accounts added at once: what was pasted becomes a batch, whose lines are signed in one by one by the keeper."""
