"""What touches torch: models, data, the inner loop, DiLoCo. Knows nothing of networks."""
