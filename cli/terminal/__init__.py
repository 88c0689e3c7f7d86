"""The terminal: messages, tables, progress, plots."""
