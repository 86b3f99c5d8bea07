"""What comes from the user, checked and converted."""
