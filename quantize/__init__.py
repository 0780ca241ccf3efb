"""Graph in, :class:`QuantizedModel` out: post-training quantisation, quantisation-aware training, the integer reference."""

from quantize.integer import IntegerNetwork
from quantize.model import QuantizedModel

__all__ = ["IntegerNetwork", "QuantizedModel"]
