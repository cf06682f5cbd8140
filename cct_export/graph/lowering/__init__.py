"""Lowers any Keras model whose operations the plan has.

Keras models hold their graph; a layer of other code is called with a Keras tensor, which records
what it does. What comes out is the plan of the model if it has the model's logits.
"""

from cct_export.graph.lowering.proof import Lowering, lower_model
