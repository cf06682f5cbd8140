"""The Compact Convolutional Transformer in Keras, on any backend."""
