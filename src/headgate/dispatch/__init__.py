"""How is an answer got: a plan carried out, attempt by attempt. Read dispatch.py first."""

from headgate.dispatch.course import Patience
from headgate.dispatch.dispatch import Dispatch

__all__ = ["Dispatch", "Patience"]
