"""What is told of a run, of several, or of a training to come: gathered, then laid out as text, page or picture."""
