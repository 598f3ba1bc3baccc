"""Every metric of the operator, with controller-runtime's nouns so that its dashboards need a new prefix only."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECONCILE_TOTAL = Counter(
    "lora_operator_reconcile_total", "Passes that ended, by controller and result.", ["controller", "result"]
)
RECONCILE_ERRORS = Counter(
    "lora_operator_reconcile_errors_total", "Passes that ended with an error and are retried.", ["controller"]
)
RECONCILE_TIME = Histogram("lora_operator_reconcile_time_seconds", "Seconds that a pass took.", ["controller"])
ACTIVE_WORKERS = Gauge("lora_operator_active_workers", "Passes that run now.", ["controller"])
WORKQUEUE_DEPTH = Gauge("lora_operator_workqueue_depth", "Keys that are due and wait for a worker.", ["name"])
REST_REQUESTS = Counter(
    "lora_operator_rest_client_requests_total",
    "Requests to the apiserver, by status code and method.",
    ["code", "method"],
)
OBJECTS = Gauge("lora_operator_objects", "Objects that the operator has in view, by kind.", ["kind"])
DOOR_REQUESTS = Counter(
    "lora_operator_agent_requests_total", "Calls to agents, by call and result.", ["call", "result"]
)
