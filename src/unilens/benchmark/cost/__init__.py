"""What maps cost: measured, put into laws, and projected to runs that nobody has made."""
