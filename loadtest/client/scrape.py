"""One reading of the service's `/metrics`."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from prometheus_client.parser import text_string_to_metric_families
from pydantic import PlainSerializer, PlainValidator

Key = tuple[str, frozenset[tuple[str, str]]]
Sample = tuple[str, list[tuple[str, str]], str]


def _samples(values: Mapping[Key, float]) -> list[Sample]:
    """Return the values as JSON can hold them. A number is a text, since JSON has no NaN."""
    return [(name, sorted(labels), repr(value)) for (name, labels), value in values.items()]


def _values(samples: Iterable[Sample]) -> dict[Key, float]:
    return {(name, frozenset((k, v) for k, v in labels)): float(value) for name, labels, value in samples}


Values = Annotated[Mapping[Key, float], PlainSerializer(_samples), PlainValidator(_values)]


@dataclass(frozen=True)
class Scrape:
    """Sample values by name and labels. `later - earlier` is the increase in between; `+` adds two increases."""

    values: Values

    def __sub__(self, earlier: "Scrape") -> "Scrape":
        return Scrape({key: value - earlier.values.get(key, 0.0) for key, value in self.values.items()})

    def __add__(self, other: "Scrape") -> "Scrape":
        keys = self.values.keys() | other.values.keys()
        return Scrape({key: self.values.get(key, 0.0) + other.values.get(key, 0.0) for key in keys})

    def about(self, variant: str) -> "Scrape":
        """Return only the samples with this variant as a label."""
        return Scrape({key: value for key, value in self.values.items() if ("variant", variant) in key[1]})

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name with these labels.

        It is 0 without samples, or if one of them is NaN or infinite: then the service does not state the sum.
        """
        added = self._added(name, labels)
        return added if math.isfinite(added) else 0.0

    def mean(self, histogram: str, **labels: str) -> float | None:
        """Return the mean of a histogram's observations; None without observations, or if a sample is NaN."""
        count, added = (self._added(histogram + part, labels) for part in ("_count", "_sum"))
        mean = added / count if count > 0 else math.nan
        return mean if math.isfinite(mean) else None

    def label_values(self, name: str, label: str) -> list[str]:
        """Return the sorted values of `label` among the samples of this name."""
        return sorted({value for key in self.values if key[0] == name for k, value in key[1] if k == label})

    def quantile(self, histogram: str, q: float, **labels: str) -> float | None:
        """Return a quantile by linear interpolation inside its bucket, as Prometheus's `histogram_quantile` does.

        None without observations, or if the quantile lies above the last finite edge.
        """
        edges = sorted((_edge(le), le) for le in self.label_values(histogram + "_bucket", "le"))
        below, lower = 0.0, 0.0
        rank = q * self.total(histogram + "_count", **labels)
        for edge, le in edges:
            count = self.total(histogram + "_bucket", le=le, **labels)
            if count >= rank > 0:
                return None if math.isinf(edge) else lower + (edge - lower) * (rank - below) / (count - below)
            below, lower = count, edge
        return None

    def _added(self, name: str, labels: Mapping[str, str]) -> float:
        wanted = set(labels.items())
        return sum(value for key, value in self.values.items() if key[0] == name and wanted <= key[1])


def parse(text: str) -> Scrape:
    """Return the samples of a Prometheus text exposition."""
    return Scrape(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
    )


def _edge(le: str) -> float:
    return math.inf if le in ("+Inf", "Inf") else float(le)
