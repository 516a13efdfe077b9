"""Several runs together: which they are, how far they are, what they will cost, and what they come to."""
