"""Conversations as text by a chat template, and as tokens: what is in front of each answer, and what is learnt of it."""
