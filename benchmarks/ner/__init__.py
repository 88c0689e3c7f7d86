"""How well entity extraction is learnt in a quarter of an hour on a processor."""
