"""What maps cost: measured, fitted by scaling laws, and projected to runs that nobody has made."""
