"""Model cards: the README of a pushed or exported model, from plain values; nothing here knows of a network."""
