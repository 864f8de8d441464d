"""From the original project to ours: readers of its data, a plan against what is kept here, and doing it."""
