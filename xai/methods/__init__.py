"""What is trained: one LightningModule a file, each around a pure loss that carries its equation's number."""
