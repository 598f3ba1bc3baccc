"""lora-agent: holds the adapters of one engine pod. Runs beside the engine as a native sidecar."""
