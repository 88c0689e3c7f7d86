"""How long a save keeps the training waiting: beside it, in it, and in Hugging Face's Trainer."""
