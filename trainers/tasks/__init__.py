"""Tasks: what a record is, how it is rendered and what is supervised."""
