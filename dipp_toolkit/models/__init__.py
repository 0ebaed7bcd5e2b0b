"""References, generators and text encoders: loaded, sampled, decoded, adapted and exported."""
