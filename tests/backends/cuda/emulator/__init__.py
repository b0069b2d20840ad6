"""Runs program.cu on the CPU, where there is no card: its blocks are threads, and their threads are fibers.

``translate.py`` makes C++ of the source, assembly instructions becoming calls to ``device.h``, which does what they say
and complains of what a card would refuse: copies that are misaligned or leave shared memory, barriers that more arrive
at than they count, threads that wait for ever. ``harness.py`` stands in for CuPy, so that ``program.py`` itself writes
the instructions.
"""
