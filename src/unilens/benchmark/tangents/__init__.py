"""The study of tangential alignment: small networks, small images, all baselines."""
