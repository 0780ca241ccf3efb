"""Measuring quality: metrics, the test bed, and the evidence that it leaves."""
