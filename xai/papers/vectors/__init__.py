"""Explainability vectors (Yoshikawa et al.): base weights, fine-tuning, the vector, the transfer, its diagnostics."""
