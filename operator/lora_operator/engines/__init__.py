"""What differs between the types of inference engine, one file each. Pure: read by the LoRAEngine pass."""
