"""The apiserver as passes see it: plain objects in, plain objects out, one call each.

`kubernetes.aio` brings configuration, credentials and transport. Objects stay dictionaries: what we read is validated
by the models of `lora_operator.api`, and what we write is built by `manifests.py` of each kind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from lora_operator import labels, metrics
from lora_operator.errors import ChangedError, FieldConflictError

Object = dict[str, Any]
TIMEOUT: Final = 30
APPLY: Final = "application/apply-patch+yaml"
JSON_PATCH: Final = "application/json-patch+json"
PAGE: Final = 500
REFUSED: Final = frozenset({400, 403, 422})
"""How the apiserver answers what asking again does not change: not valid, over a quota, against a policy."""


class Resource(NamedTuple):
    """One resource of the API, as paths need it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of the collection, the object or its subresource."""
        root = "/api" if "/" not in self.api_version else "/apis"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return "/".join(filter(None, [f"{root}/{self.api_version}{scope}", self.plural, name, subresource]))


ENGINES = Resource(labels.API_VERSION, "LoRAEngine", "loraengines")
ADAPTERS = Resource(labels.API_VERSION, "LoRAAdapter", "loraadapters")
TRAINING_JOBS = Resource(labels.API_VERSION, "LoRATrainingJob", "loratrainingjobs")
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
PODS = Resource("v1", "Pod", "pods")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
SECRETS = Resource("v1", "Secret", "secrets")
SERVICES = Resource("v1", "Service", "services")
NAMESPACES = Resource("v1", "Namespace", "namespaces", namespaced=False)
JOBS = Resource("batch/v1", "Job", "jobs")
EVENTS = Resource("events.k8s.io/v1", "Event", "events")
TOKEN_REVIEWS = Resource("authentication.k8s.io/v1", "TokenReview", "tokenreviews", namespaced=False)

WATCHED: Final = (ENGINES, ADAPTERS, TRAINING_JOBS, DEPLOYMENTS, PODS, CONFIG_MAPS, JOBS)
BY_KIND: Final = {
    resource.kind: resource for resource in (*WATCHED, SECRETS, SERVICES, NAMESPACES, EVENTS, TOKEN_REVIEWS)
}


class Listing(NamedTuple):
    """All objects of a resource, as of one version of it."""

    items: list[Object]
    version: int


class Kube:
    """One connection to the apiserver. `saw` is told of every object that a write returned (read-your-writes)."""

    def __init__(self, api: client.ApiClient, *, saw: Callable[[Object], object] = lambda _: None) -> None:
        self._api = api
        self._saw = saw

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Read one object; None where it is not there."""
        try:
            return await self._call("GET", resource.path(namespace, name))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    async def list(self, resource: Resource, *, namespace: str | None = None, selector: str = "") -> Listing:
        """Read all objects, in pages. Items carry their kind and apiVersion, which a list leaves out."""
        items: list[Object] = []
        version = 0
        query: dict[str, str] = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._call("GET", resource.path(namespace), query=query)
            items += [{"apiVersion": resource.api_version, "kind": resource.kind} | item for item in page["items"]]
            version = version or int(page["metadata"]["resourceVersion"])
            if not (more := page["metadata"].get("continue")):
                return Listing(items, version)
            query["continue"] = more

    async def apply(
        self, obj: Object, *, subresource: str | None = None, force: bool = True, manager: str = labels.FIELD_MANAGER
    ) -> Object:
        """Server-side apply as a field manager of ours.

        An object with `metadata.uid` is never made anew. Raises FieldConflictError where `force` is off and another
        manager holds a field, and ChangedError where the object is gone, or not the one that was read.
        """
        metadata = obj["metadata"]
        path = BY_KIND[obj["kind"]].path(metadata.get("namespace"), metadata["name"], subresource)
        query = {"fieldManager": manager, "force": str(force).lower()}
        try:
            written = await self._call("PATCH", path, query=query, body=obj, content_type=APPLY)
        except ApiException as error:
            if error.status == 409 and (details := _field_conflict(error)):
                raise FieldConflictError(details) from error
            if error.status in {404, 409}:
                raise ChangedError(f"{obj['kind']} {metadata['name']} went or changed meanwhile") from error
            raise
        if BY_KIND[obj["kind"]] in WATCHED:
            self._saw(written)
        return written

    async def patch(self, obj: Object, operations: Sequence[Object]) -> None:
        """Apply a JSON patch to an object, which may go by it: the answer is not taken in.

        Raises ChangedError where the object is gone, or a `test` among the operations fails.
        """
        metadata = obj["metadata"]
        path = BY_KIND[obj["kind"]].path(metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": labels.FIELD_MANAGER}
        try:
            await self._call("PATCH", path, query=query, body=operations, content_type=JSON_PATCH)
        except ApiException as error:
            if error.status in {404, 409, 422}:
                raise ChangedError(f"{obj['kind']} {metadata['name']} went or changed meanwhile") from error
            raise

    async def create(self, obj: Object) -> Object:
        """Create an object; an ApiException with status 409 where it exists."""
        resource = BY_KIND[obj["kind"]]
        path = resource.path(obj["metadata"].get("namespace"))
        written = await self._call("POST", path, query={"fieldManager": labels.FIELD_MANAGER}, body=obj)
        if resource in WATCHED:
            self._saw(written)
        return written

    async def delete(self, obj: Object) -> None:
        """Delete this very object (by uid), dependents in the background. One that is gone is no error."""
        metadata = obj["metadata"]
        path = BY_KIND[obj["kind"]].path(metadata.get("namespace"), metadata["name"])
        preconditions = {"uid": metadata["uid"]} if "uid" in metadata else {}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": preconditions,
        }
        try:
            await self._call("DELETE", path, body=body)
        except ApiException as error:
            if error.status not in {404, 409}:
                raise

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Object | Sequence[Object] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        code = "none"
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*request, _request_timeout=TIMEOUT)
            data = await response.read()
            code = str(response.status)
            if not 200 <= response.status <= 299:
                ApiException.from_response(http_resp=response, body=data.decode(errors="replace"), data=None)
            return cast("Object", json.loads(data))
        finally:
            metrics.REST_REQUESTS.labels(code, method).inc()


def said_by_apiserver(error: ApiException) -> str:
    """Return the sentence with which the apiserver refused."""
    try:
        return str(json.loads(error.body or "{}").get("message") or error.reason)
    except ValueError:
        return str(error.reason)


def _field_conflict(error: ApiException) -> str:
    """Return what an apply conflicted with, one cause a line; empty where the 409 is another one (a uid, a version)."""
    try:
        causes = json.loads(error.body or "{}").get("details", {}).get("causes", [])
    except ValueError:
        return ""
    conflicts = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    return "; ".join(f"{cause['message']}: {cause['field']}" for cause in conflicts)


async def connect(*, saw: Callable[[Object], object]) -> Kube:
    """Connect with the pod's ServiceAccount, else with KUBECONFIG or ~/.kube/config."""
    configuration = client.Configuration()
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config(client_configuration=configuration)
    else:
        await config.load_kube_config(client_configuration=configuration)
    return Kube(client.ApiClient(configuration), saw=saw)
