"""How good an attribution map is: pure functions, torchmetrics classes over them, and tests between rows of a table."""
