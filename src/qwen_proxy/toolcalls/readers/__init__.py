"""How calls are read out of text: one module a form."""
