"""Backbones: networks that correct a noisy chunk, shared by the families that denoise. See `policies.backbones.base`."""
