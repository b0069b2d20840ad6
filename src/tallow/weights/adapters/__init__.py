"""Adapters: one for each pair of file format and architecture, from the file's names to the modules' names.

A module asks under the names that its architecture's first implementation gave it; an adapter is a source that knows
where those lie in another file.
"""
