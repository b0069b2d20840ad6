"""Matrices that operations multiply: dense, in blocks, quantised."""
