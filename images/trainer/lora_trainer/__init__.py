"""lora-train: makes one adapter from a frozen LoRATrainingJob spec and publishes it."""
