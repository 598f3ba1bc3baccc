"""`lora-inspect`: the adapter library as a command, for people and CI: the verdict that operator and agent give."""
