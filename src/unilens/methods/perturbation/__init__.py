"""Methods that mask the input and watch the score: forward passes only."""
