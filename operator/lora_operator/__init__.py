"""lora-operator: owns a LoRA adapter from the data set to the tenant's request."""

__version__ = "0.1.0"
