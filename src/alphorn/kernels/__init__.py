"""Pure functions on arrays, each tested against a reference."""
