"""Any Keras image classifier, traced at inference and converted by the stock converters."""
