"""Explainers that need no training: they ask or differentiate a classifier."""
