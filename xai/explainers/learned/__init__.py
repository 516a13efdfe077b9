"""Trained networks as explainers."""
