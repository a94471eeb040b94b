"""From tables and image files to the samples of a training: cases, volumes, boxes, covariates, splits and a cache."""
