"""Base models: loading, quantising, adapting."""
