"""What the real applications show: the products of a shop, made up, and the same each time."""

from __future__ import annotations

from dataclasses import dataclass

CATEGORIES = ("Bread", "Cheese", "Fruit", "Tea", "Wine")


@dataclass(frozen=True, slots=True)
class Product:
    """One of them; ``price`` is in cents."""

    number: int
    name: str
    category: str
    price: int
    stock: int


def products(count: int) -> list[Product]:
    """So many, with prices and stocks that look as if they had been thought of."""
    return [
        Product(
            number=number,
            name=f"{CATEGORIES[number % 5]} no. {number} & more",
            category=CATEGORIES[number % 5],
            price=199 + number * 37 % 2_000,
            stock=number * 7 % 12,
        )
        for number in range(1, count + 1)
    ]
