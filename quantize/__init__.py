"""Graph in, :class:`QuantizedModel` out: post-training quantisation, quantisation-aware training, the integer reference."""

import logging

# torchao says on import which of its CUDA libraries it cannot load, torch that an enum is registered twice.
for _noisy in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)

from quantize.integer import IntegerNetwork  # noqa: E402
from quantize.model import QuantizedModel  # noqa: E402

__all__ = ["IntegerNetwork", "QuantizedModel"]
