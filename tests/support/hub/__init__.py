"""A look-alike of the Hugging Face Hub on loopback, for tests: see ``Hub``."""

from support.hub.faults import Fault
from support.hub.server import Hub

__all__ = ["Fault", "Hub"]
