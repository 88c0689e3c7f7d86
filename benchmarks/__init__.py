"""Measurements that the documentation quotes; each prints the machine and the versions it ran with."""
