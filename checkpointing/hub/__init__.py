"""The Hugging Face Hub: pushing checkpoints beside training, and getting them back."""
