"""Connections, and no domain."""
