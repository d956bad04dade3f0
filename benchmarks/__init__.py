"""Speed beside the peers, as ratios."""
