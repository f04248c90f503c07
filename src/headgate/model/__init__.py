"""Values: what everything else speaks of."""
