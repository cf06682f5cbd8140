"""What inference needs of a model."""
