"""The three ideas: state, sequences, layers."""
