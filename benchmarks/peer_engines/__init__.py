"""What runs in the environment of a peer: a module per engine, which imports numpy and that engine.

Each has ``convert(source, precision, images, folder)``, which returns the path of the engine's
file, ``parts(path)``, the files whose sizes count, and ``Session(path, precision)`` on one thread,
whose ``run`` is timed and gets what ``prepare`` made of a float32 image ``(1, H, W, C)``.
"""
