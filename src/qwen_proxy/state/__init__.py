"""What processes agree on and what outlives them: records, usage, blocks. storage/ keeps it, in one of three ways."""
