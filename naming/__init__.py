"""Names: pure functions from settings and a clock to run names and Hub ids."""
