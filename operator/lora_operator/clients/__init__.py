"""Thin clients of the outside: the apiserver, the Hub, the agents. They carry out one call each and decide nothing."""
