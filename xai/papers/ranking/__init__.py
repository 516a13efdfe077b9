"""Learn to Rank (Schinagl et al. 2026): the explainer's training, its refinement, the shortcut of Figure 5."""
