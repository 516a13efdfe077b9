"""Explainers: whatever maps images and target classes to attributions."""
