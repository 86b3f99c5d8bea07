"""The study of tangential alignment: small networks on digits, all baselines."""
