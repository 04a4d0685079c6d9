"""Base class of the sections of `params.yaml`: strict types, optional keys."""

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """Base of all sections: frozen, strict types, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def given(self) -> dict[str, Any]:
        """Return the keys that the file gives, as values for JSON; a key left out stays out."""
        return self.model_dump(mode="json", exclude_unset=True)


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("null", "leave the key out to switch this off")
    return value


# For a key that may be left out, which switches its feature off. A written `null` is refused, so
# that there is one way to say it.
OFF_IF_ABSENT = BeforeValidator(_refuse_null)

MAX_COUNT = 10**8  # more than any data set here has images
Count: TypeAlias = Annotated[int, Field(ge=1, le=MAX_COUNT)]
CountFrom0: TypeAlias = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
