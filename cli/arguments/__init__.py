"""What commands are given: options of settings, the base directory, a run and its checkpoint, the Hub's client."""
