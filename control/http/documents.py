"""What all bodies and all views of the API have in common."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """Of a request. A field that is not known is refused: a misspelled one would be left out in silence."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class View(BaseModel):
    """Of an answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)
