"""The benchmark's own INT8 on torch's oneDNN operators, about which torch promises nothing."""

from pathlib import Path

from benchmarks import onednn
from models import cifar10, reference
from models.card import read_card
from models.files import BUNDLED
from models.logits import agreement, sqnr


def test_it_gives_the_logits_of_a_good_int8(tmp_path: Path) -> None:
    """Its noise lies at least 27 dB below the logits and shows that it ran in INT8; 97 % of the classes agree."""
    exact = reference.reference(BUNDLED, read_card(BUNDLED).sha256)
    found = onednn.int8(1, tmp_path)(len(exact))(cifar10.sample()[0])
    assert 27 < (sqnr(exact, found) or 0) < 60
    assert agreement(exact, found) >= 0.97
