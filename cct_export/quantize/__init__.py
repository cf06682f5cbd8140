"""Post-training quantization (PTQ) of inference plans and of traced models.

``schemes`` lists the quantization schemes, ``statistics`` calibrates on images, ``ranges`` and
``rounding`` choose activation ranges and round weights, ``ptq`` combines them to a quantized plan.
``traced`` quantizes files of traced models with the tools of the runtimes: ``traced_tflite`` and
``traced_onnx``, calibrated by ``file_statistics``.
"""
