"""Methods that mask the input and measure the score: forward passes only."""
