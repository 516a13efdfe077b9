"""What is special to each paper: what it trains, and what its study measures beside the metrics of all."""
