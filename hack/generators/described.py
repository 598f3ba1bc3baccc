"""The docstring under a field of a model, which describes it.

pydantic's `use_attribute_docstrings` does the same whenever a class is made: in every process that imports the kinds it
parses their sources anew, which was a fifth of what their import takes.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue


class Described(GenerateJsonSchema):
    """Makes a JSON schema in which each field has its docstring for a description."""

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        """Return the schema of one model, described."""
        made, model = super().model_schema(schema), schema["cls"]
        for name, text in docstrings(model).items():
            made["properties"][model.model_fields[name].alias or name]["description"] = text
        return made


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring of each field that has one, inherited ones too."""
    bases = [base for base in reversed(model.__mro__) if issubclass(base, BaseModel) and base is not BaseModel]
    return {name: text for base in bases for name, text in _own(base) if name in model.model_fields}


def _own(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    statement = cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(model))).body[0])
    for pair in pairwise(statement.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, text
