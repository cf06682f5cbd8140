"""One module per source of labelled images."""
