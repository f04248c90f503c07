"""A model provider of its own over HTTP: deterministic, counted, and able to misbehave on request."""
