"""Whether pushing to the Hub slows a training down, and how far the checkpoints get meanwhile."""
