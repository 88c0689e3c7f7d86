"""What is done with a checkpoint: answers, scores, images, exports."""
