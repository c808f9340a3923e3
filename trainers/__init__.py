"""What is trained: GANs, the loop that trains them, their data and their scores."""
