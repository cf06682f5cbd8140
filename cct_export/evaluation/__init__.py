"""How close a file is to its model, how accurate it is, and what it predicts."""
