"""Operations on tensors and files that do not depend on explanations."""
