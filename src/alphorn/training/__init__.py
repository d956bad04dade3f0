"""Training: the data, the compiled step, the loops, and what is told of them."""
