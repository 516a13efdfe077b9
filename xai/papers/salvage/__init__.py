"""SALVAGE (Naouar et al. 2025) and ViT-Shapley (Covert et al. 2023): training, likelihood of masks, the study."""
