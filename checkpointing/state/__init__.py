"""Training state to files and back, bit for bit. With the Python API the only room here that imports torch."""
