"""What ranking gains on MovieLens 100K."""
