"""Models: one file or folder each, found by its ``SPEC`` (``registry.py``)."""
