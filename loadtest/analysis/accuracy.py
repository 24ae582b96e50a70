"""The accuracy of each arm, and its agreement with its baseline, on the images that were sent."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.statistics import mcnemar, paired_difference, proportion
from loadtest.client.images import UNLABELLED, Bodies, LabelledImages
from loadtest.plan import Arm
from loadtest.records import Played
from loadtest.report.document import Accuracy, Against

UNSEEN = -1


class Answers:
    """The first answer of one arm to each image; `changed` counts the later answers that differ from it."""

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
        """A mask over the images: True where the image was answered."""
        return np.not_equal(self.first, UNSEEN)


def accuracies(
    arms: Sequence[Arm], baselines: Mapping[str, str], images: LabelledImages, bodies: Bodies, played: Sequence[Played]
) -> list[Accuracy]:
    """Return each arm's accuracy on the labelled images that all arms answered, and how it compares."""
    answers = {arm.name: Answers(images, bodies, [p for p in played if p.arm == arm]) for arm in arms}
    common = np.logical_and.reduce([images.labels != UNLABELLED, *(own.seen for own in answers.values())])
    count = int(common.sum())
    return [
        Accuracy(
            arm=name,
            images=count,
            accuracy=proportion(int(np.sum(own.first[common] == images.labels[common])), count) if count else None,
            changed_answers=own.changed,
            right=marks(own, images),
            against=against(own, answers[baselines[name]], images, baselines[name]) if name in baselines else None,
        )
        for name, own in answers.items()
    ]


def marks(answers: Answers, images: LabelledImages) -> str:
    """Return a mark per image, in the order of the file: `1` right, `0` wrong, `-` not judged."""
    right, judged = answers.first == images.labels, answers.seen & (images.labels != UNLABELLED)
    return "".join("-" if not known else "1" if ok else "0" for known, ok in zip(judged, right, strict=True))


def discordant(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int]:
    """Return how many of the same trials only a got right, and how many only b."""
    return int(np.sum(a & ~b)), int(np.sum(~a & b))


def against(own: Answers, other: Answers, images: LabelledImages, baseline: str) -> Against:
    """Return agreement on the images that both arms answered, and the paired difference on those with a label."""
    both = own.seen & other.seen
    judged = both & (images.labels != UNLABELLED)
    count, trials = int(both.sum()), int(judged.sum())
    right, other_right = (a.first[judged] == images.labels[judged] for a in (own, other))
    only_own, only_other = discordant(right, other_right)
    return Against(
        baseline=baseline,
        images=count,
        agreement=proportion(int(np.sum(own.first[both] == other.first[both])), count) if count else None,
        difference=paired_difference(only_own, only_other, trials) if trials else None,
        only_this_right=only_own,
        only_baseline_right=only_other,
        mcnemar_p=mcnemar(only_own, only_other),
    )
