"""What needs quantizing and measuring together: where the loss sits, bounds, the best scheme."""
