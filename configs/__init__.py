"""Settings: the schema, the sources and the errors."""
