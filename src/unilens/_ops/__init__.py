"""Small operations on tensors and files that know nothing of explanations."""
