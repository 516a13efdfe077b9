"""Data: reading pictures, the sets on disk and those that ship in packages, and what explains them."""
