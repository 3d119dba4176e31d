"""The cells of the table of exports, and what it has lines of; nothing is exported."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import exports

from lorakit.errors import LorakitError
from lorakit.workflows.export_order import Proof


def test_an_export_is_told_by_its_share_of_the_largest_logit_its_text_and_its_change_in_loss():
    proof = Proof("runtime 1", "float32", 2, "rows", 0.002, 20.0, 0.5, 2.0, 2.05)
    assert (exports.exact(proof), exports.rounded(proof)) == ("1e-04, 50%", "+2.50%")
    assert exports.exact(replace(proof, same_text=None)) == "1e-04"
    assert exports.exact(replace(proof, largest_difference=0.0)) == "0, 50%"
    assert exports.exact(LorakitError("no place for it")) == exports.rounded(LorakitError("no place for it")) == "-"


def test_each_family_is_exported_with_each_kind_of_adapter():
    kinds: dict[str, set[str]] = {case.family: set() for case in exports.CASES}
    for case in exports.CASES:
        kinds[case.family].add(case.name.removeprefix("— "))
    assert set.intersection(*kinds.values()) == {"rsLoRA", "DoRA", "ranks by layer", "new tokens"}
