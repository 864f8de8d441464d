"""How well calls are read back out of text: a seeded corpus of damaged calls, texts that only show calls, and the cost.

The corpus is written apart from the code that repairs: it knows the forms and the faults of models, not the cures.
"""
