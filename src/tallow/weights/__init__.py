"""Weights: how they get from files into a model."""
