"""How to speak to a model provider."""
