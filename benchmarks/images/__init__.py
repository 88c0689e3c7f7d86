"""Two stages on Fashion-MNIST: a base on all clothes, then LoRA on shoes."""
