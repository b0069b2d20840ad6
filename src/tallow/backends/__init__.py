"""Backends: kernels that stand in for reference implementations, one package for each kind of device."""
