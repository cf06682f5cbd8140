"""A session over one artifact, one module per engine."""
