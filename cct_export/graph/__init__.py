"""The inference plan of a CCT: made of the Keras model, folded, computed."""
