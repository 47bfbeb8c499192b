"""Measurements: speed and memory as ratios against something run beside them. Results go into docs/LOG.md."""
