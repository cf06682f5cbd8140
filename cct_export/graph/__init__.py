"""The intermediate representation of a CCT: one inference plan behind every file format.

``lower`` makes a ``Plan`` of typed ``steps`` from a Keras model, ``fold`` simplifies it exactly,
and ``expand`` rewrites it to primitive operators. ``interpret`` is the numpy reference of each
step, ``quantized`` simulates integer arithmetic on it.
"""
