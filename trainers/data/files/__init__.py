"""Records from files and from the Hub: which files a name stands for, and how each form is read."""
