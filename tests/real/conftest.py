"""Needs the dependency group `real` (`make test-real`); without it there is nothing here to collect."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("xllamacpp") else ["test_*.py"]
