"""How sure the cache is, held against labels and against a log of real traffic."""
