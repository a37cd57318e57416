"""What is published: the model folder, its card, and the Hub."""
