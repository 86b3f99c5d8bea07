"""What a reader sees of an attribution: figures, notebooks and records."""
