"""Data: reading records, order, packing and batches."""
