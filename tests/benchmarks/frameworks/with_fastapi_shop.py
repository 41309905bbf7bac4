"""FastAPI as it is used: a path with validated parameters, a dependency that looks who asks, and a typed response."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query
from pydantic import BaseModel, Field

from tests.benchmarks.frameworks import catalogue

TOKENS = {"not-a-secret": "customer"}


class Filter(BaseModel):
    """The query of a list."""

    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0)
    order: Literal["name", "price"] = "name"
    in_stock: bool = False


class Item(BaseModel):
    """A product, as it is answered."""

    number: int
    name: str
    category: str
    price: float = Field(ge=0)
    available: bool


class Page(BaseModel):
    """Part of a list."""

    customer: str
    total: int
    items: list[Item]


PRODUCTS = [
    Item(number=one.number, name=one.name, category=one.category, price=one.price / 100, available=one.stock > 0)
    for one in catalogue.products(50)
]


async def customer(authorization: Annotated[str, Header()]) -> str:
    """The name of the customer whose token it is."""
    scheme, _, token = authorization.partition(" ")
    if scheme != "Bearer" or token not in TOKENS:
        raise HTTPException(401)
    return TOKENS[token]


app = FastAPI()


@app.get("/shops/{shop}/items")
async def items(
    shop: Annotated[int, Path(ge=1)], wanted: Annotated[Filter, Query()], name: Annotated[str, Depends(customer)]
) -> Page:
    found = [item for item in PRODUCTS if item.available or not wanted.in_stock]
    found.sort(key=lambda item: getattr(item, wanted.order))
    return Page(customer=name, total=len(found), items=found[wanted.offset : wanted.offset + wanted.limit])
