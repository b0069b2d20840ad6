"""Runs kernels on the CPU, where there is no card: their threads are fibers that take turns.

``translate.py`` makes C++ of a source, assembly instructions becoming calls of functions that do what they say and
complain of what a card would refuse: accesses that are misaligned or leave shared memory, threads that wait for ever.
``build.py`` compiles it, and launches a kernel. ``standin.py`` stands in for CuPy, so that the backend itself decides
what is launched: ``plugin.py`` makes pytest run with it.
"""
