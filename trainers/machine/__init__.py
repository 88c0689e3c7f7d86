"""The machine: device, processes, signals, memory, disk, and what is on record of them. Knows no model and no data."""
