"""A fuzzer of every file kind that a command reads, and of kills: ``make fuzz SECONDS=600``."""
