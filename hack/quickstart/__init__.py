"""The main job on one machine: a real cluster, a Hub, a real vLLM, and the operator installed with its own chart.

`make cluster`, `make quickstart` and `make down` are this package; the e2e tests stand on its stage.
"""
