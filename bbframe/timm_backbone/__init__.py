"""Everything that knows timm: a backbone around any of its networks."""
