"""Code generated from `proto/steer/v1` by `make proto`; never edited by hand."""
