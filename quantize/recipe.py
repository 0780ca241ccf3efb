"""The PT2E recipe: one annotated graph whose int8 scales serve ExecuTorch, LiteRT and Core ML.

Activations int8 affine per tensor, weights int8 symmetric per output channel (-127..127). Annotation is XNNPACK's, since its
graph is the one that all three exporters take (litert-torch's own quantizer skips transposed convolutions).
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeVar

import torch
from torch import nn
from torchao.quantization.pt2e import FakeQuantize, MinMaxObserver, MovingAveragePerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

from zoo.models.contracts import contract_of

_Kind = TypeVar("_Kind", bound=FakeQuantize)


class PerChannelFakeQuantize(FakeQuantize):
    """Unfused fake quantisation of weights.

    torchao keeps the channel axis only for classes with "PerChannel" in their name, and its fused class supports axis 0
    alone, while transposed convolutions need axis 1: with either, they stay outside the delegate.
    """


class ActivationFakeQuantize(FakeQuantize):
    """Fake quantisation of an activation; :mod:`quantize.calibrate` sets its range, which then stays.

    Learned step sizes (Esser et al., ICLR 2020) were tried for fine-tuning: 35.980 dB against 35.977 with ranges held.
    """

    def set_range(self, low: float, high: float) -> None:
        """The range that int8 covers, widened to hold zero; the zero point is rounded to an integer."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / 255, 2**-16)
        zero = int(min(127, max(-128, round(-128 - low / scale))))
        self.scale.resize_(1).fill_(scale)
        self.zero_point.resize_(1).fill_(zero)
        # convert_pt2e asks the observer, not the module: give it the range that leads to the same numbers.
        observer = self.activation_post_process
        observer.min_val.resize_(()).fill_((-128 - zero) * scale)
        observer.max_val.resize_(()).fill_((127 - zero) * scale)


def _quantizer() -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    default = get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        is_dynamic=False,
        observer_or_fake_quant_ctr=ActivationFakeQuantize.with_args(observer=MinMaxObserver, eps=2**-16),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        is_dynamic=False,
        # averaging_constant 1 follows the weights exactly: LiteRT re-derives transposed-convolution scales as max|w|/127,
        # and a lagging average gave it other weights (2-15 % of them off by 1-5 steps).
        observer_or_fake_quant_ctr=PerChannelFakeQuantize.with_args(
            eps=2**-16, observer=MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0
        ),
    )
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(QuantizationConfig(activation, activation, weight, default.bias, True))
    return quantizer


def prepare(model: nn.Module, channels: int | None = None) -> nn.Module:
    """A copy of ``model`` as an exported graph with fake quantisation in it, ready to calibrate, train or convert.

    Batch, height and width of its input are free. Ranges are unset: see :func:`quantize.calibrate.calibrate`.

    Args:
        model: to quantise.
        channels: of its input; None for what its contract says.
    """
    from torchao.quantization.pt2e import allow_exported_model_train_eval
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(2, channels or contract_of(model).in_channels, 64, 64),)
        # check_guards=False: else the graph refuses every shape but the example's.
        # Of a copy: the graph would share the parameters, and fine-tuning it would train the float model too.
        exported = torch.export.export(copy.deepcopy(model).train(), example).module(check_guards=False)
        prepared = prepare_qat_pt2e(exported, _quantizer())
    return allow_exported_model_train_eval(prepared)


def fake_quantizers(prepared: nn.Module, kind: type[_Kind]) -> dict[str, _Kind]:
    """The distinct fake-quantise modules of one kind, by name (shared ones once)."""
    found: dict[str, _Kind] = {}
    seen: set[int] = set()
    for name, module in prepared.named_modules():
        if isinstance(module, kind) and id(module) not in seen:
            seen.add(id(module))
            found[name] = module
    return found
