"""Charts of results: Plotly figures as plain JSON types, each with what it shows in words."""
