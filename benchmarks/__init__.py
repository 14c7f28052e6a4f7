"""Measurements of bbframe: `compare` sets it beside transformers and timm, `neighborhood` beside a plain gather."""
