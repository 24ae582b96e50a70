"""Whether the answers are right, and whether two arms give the same ones, on the images that were sent."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.statistics import mcnemar, paired_difference, proportion
from loadtest.client.images import Bodies, LabelledImages
from loadtest.plan import Arm
from loadtest.records import Played

UNSEEN = -1


class Answers:
    """The first answer of one arm to each image, and how often a later one differed."""

    def __init__(self, images: LabelledImages, bodies: Bodies, played: Sequence[Played]) -> None:
        self.first: NDArray[np.int64] = np.full(len(images), UNSEEN, dtype=np.int64)
        self.changed = 0
        for request in (request for p in played for request in p.requests if request.answer):
            members = bodies.members[request.sequence % len(bodies)]
            answer = np.array(request.answer[: len(members)], dtype=np.int64)
            known = self.first[members[: len(answer)]]
            self.changed += int(np.sum((known != UNSEEN) & (known != answer)))
            self.first[members[: len(answer)]] = np.where(known == UNSEEN, answer, known)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which images were answered."""
        return np.not_equal(self.first, UNSEEN)


def accuracies(
    arms: Sequence[Arm], baselines: dict[str, str], images: LabelledImages, bodies: Bodies, played: Sequence[Played]
) -> list[dict[str, Any]]:
    """Per arm: the share of right answers to the images that all arms answered, and how it stands to its baseline."""
    answers = {arm.name: Answers(images, bodies, [p for p in played if p.arm == arm]) for arm in arms}
    common = np.logical_and.reduce([own.seen for own in answers.values()])
    rows = []
    for arm in arms:
        own = answers[arm.name]
        share = (
            proportion(int(np.sum(own.first[common] == images.labels[common])), int(common.sum()))
            if common.any()
            else None
        )
        row: dict[str, Any] = {
            "arm": arm.name,
            "images": int(common.sum()),
            "accuracy": asdict(share) if share else None,
            "changed_answers": own.changed,
            "right": marks(own, images),
        }
        if arm.name in baselines:
            row["against"] = against(own, answers[baselines[arm.name]], images, baselines[arm.name])
        rows.append(row)
    return rows


def marks(answers: Answers, images: LabelledImages) -> str:
    """A mark per image, in the order of the file: `1` right, `0` wrong, `-` not sent. Pairs two reports."""
    right = answers.first == images.labels
    return "".join("-" if not seen else "1" if ok else "0" for seen, ok in zip(answers.seen, right, strict=True))


def discordant(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int]:
    """Return how many of the same trials only a got right, and how many only b."""
    return int(np.sum(a & ~b)), int(np.sum(~a & b))


def against(own: Answers, other: Answers, images: LabelledImages, name: str) -> dict[str, Any]:
    """Agreement and paired difference in accuracy, on the images that both arms answered."""
    both = own.seen & other.seen
    right, other_right = (a.first[both] == images.labels[both] for a in (own, other))
    only_own, only_other = discordant(right, other_right)
    agreement, difference = None, None
    if both.any():
        agreement = proportion(int(np.sum(own.first[both] == other.first[both])), int(both.sum()))
        difference = paired_difference(only_own, only_other, len(right))
    return {
        "baseline": name,
        "images": int(both.sum()),
        "agreement": asdict(agreement) if agreement else None,
        "difference": asdict(difference) if difference else None,
        "only_this_right": only_own,
        "only_baseline_right": only_other,
        "mcnemar_p": mcnemar(only_own, only_other),
    }
