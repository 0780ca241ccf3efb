"""Classical methods to compare the networks with: demosaicers, and denoisers of the mosaic before them."""

from zoo.baselines.catalogue import Baseline, get_baseline, list_baselines

__all__ = ["Baseline", "get_baseline", "list_baselines"]
