"""What a network is trained for: Lightning modules over a backbone and a head."""
