"""Run directories: made, found, listed, kept and cleaned up, with their base models and the record of what was pushed."""
