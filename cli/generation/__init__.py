"""What pitstop generate does besides answering prompts: entities, images, and a chat at the terminal."""
