"""Learn to Rank (Schinagl et al. 2026): differentiable sorting, perturbation paths, deletion and insertion areas."""
