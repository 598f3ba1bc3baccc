"""Talk to a test's apiserver as its administrator, without a client library between a test and the answer."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from localcluster import ControlPlane

Object = dict[str, Any]


class RefusedError(Exception):
    """The apiserver refused; the message is its own."""


@dataclass
class ApiServer:
    """The apiserver of a control plane. Field validation is strict, as kubectl's is."""

    plane: ControlPlane

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        trust = ssl.create_default_context(cafile=str(self.plane.ca_file))
        return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))

    def call(self, method: str, path: str, body: Object | None = None, *, media: str = "application/json") -> Object:
        """Send one request and return the answer's object; raise RefusedError with the apiserver's message."""
        headers = {"Authorization": f"Bearer {self.plane.admin_token}", "Content-Type": media}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.plane.url + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=60) as answer:
                parsed: Object = json.load(answer)
        except urllib.error.HTTPError as error:
            raise RefusedError(json.load(error)["message"]) from error
        return parsed

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Create an object and return it as it is stored."""
        return self.call("POST", f"{collection(obj)}{_query(dry_run=dry_run)}", obj)

    def patch(self, obj: Object, patch: Object, *, subresource: str = "", dry_run: bool = False) -> Object:
        """Merge a patch into an object and return it as it is stored."""
        path = (
            f"{collection(obj)}/{obj['metadata']['name']}{subresource and f'/{subresource}'}{_query(dry_run=dry_run)}"
        )
        return self.call("PATCH", path, patch, media="application/merge-patch+json")


def collection(obj: Object) -> str:
    """Return the path under which objects of this one's kind lie, in its namespace."""
    version, plural = obj["apiVersion"], f"{obj['kind'].lower()}s"
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = obj["metadata"].get("namespace")
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def _query(*, dry_run: bool) -> str:
    return "?" + urllib.parse.urlencode({"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {}))
