"""Tokenised data kept on disk: what identifies it, how it is laid out, and when it goes."""
