"""From a Keras model to a verified TFLite or ONNX file."""
