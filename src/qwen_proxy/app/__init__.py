"""Builds every object from Settings, and closes them: the only composition.

*Commons* are what all processes of an installation share (the store, and this process's place among the others); the
*door* is one upstream and the way to it; the *pool* has its accounts; the *service* is one HTTP server.
"""
