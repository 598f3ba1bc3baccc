"""The contracts between the programs: the manifest, the agent's door, and what a trainer says.

Operator, agent and trainer import these models and nothing else of each other. Each contract carries a version;
a reader takes its own version and the one before, and treats anything else as unknown.
"""
