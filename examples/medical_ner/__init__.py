"""Example data and programs."""
