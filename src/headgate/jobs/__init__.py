"""Jobs: what was asked for and is answered in its own time."""
