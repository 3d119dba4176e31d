"""The one typed description of a run: read from YAML and ``--set``, checked as a whole, written back with origins.

Free of torch, so that a recipe is checked in a blink.
"""

from lorakit.recipe.loading import LoadedRecipe, check, load, with_default_rate
from lorakit.recipe.schema import json_schema
from lorakit.recipe.settings import Recipe
from lorakit.recipe.shipped import purpose, shipped_names, shipped_text
from lorakit.recipe.writing import resolved_yaml

__all__ = [
    "LoadedRecipe",
    "Recipe",
    "check",
    "json_schema",
    "load",
    "purpose",
    "resolved_yaml",
    "shipped_names",
    "shipped_text",
    "with_default_rate",
]
