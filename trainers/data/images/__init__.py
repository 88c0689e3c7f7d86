"""Sets of images with class labels: CIFAR and IDX archives, folders of image files."""
