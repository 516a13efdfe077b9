"""Trained networks, and maps refined with a classifier's help, as explainers."""
