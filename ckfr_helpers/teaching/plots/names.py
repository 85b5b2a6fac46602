"""What tables and figures call scores, losses and data sets, so that one thing has one name everywhere."""

import re
from collections.abc import Mapping
from typing import Any

from ckfr_helpers.training.results import Results, parse

NAMES = {
    "top1": "top-1 accuracy",
    "mistake_severity": "mistake severity",
    "hdist@1": "hierarchical distance@1",
    "hdist@5": "hierarchical distance@5",
    "correlation": "latent–tree correlation",
}
LOOK_NAMES = {
    "top1": "top-1 accuracy",
    "energy": "energy on the object",
    "pointing": "pointing game",
    "pxap": "PxAP",
    "max_box_acc_v2": "MaxBoxAccV2",
    "box_acc_fixed": "box accuracy, threshold from validation",
    "gt_known": "GT-known (best threshold)",
    "gt_known_fixed": "GT-known, threshold from validation",
    "top1_loc_fixed": "Top-1 localisation, threshold from validation",
    "usual": "accuracy on the usual background",
    "foreign": "accuracy on a foreign background",
    "drop": "usual − foreign",
}
DETECTION_NAMES = {
    "corloc": "CorLoc, IoU ≥ 0.5",
    "box_mAP@0.3": "box mAP, IoU ≥ 0.3",
    "box_mAP@0.5": "box mAP, IoU ≥ 0.5",
    "mAP_tree": "box mAP, credit by the tree",
    "located": "objects with a box on them",
    "label_right": "of these, label right",
    "hdist@box": "of these, tree height of the label",
    "mistake_severity_box": "tree height of wrong labels",
    "mAP": "mAP of labels",
    "hdist@wrong": "tree height of the best wrong class",
    "ap_with": "AP, partner there",
    "ap_without": "AP, partner absent",
    "partner_answered": "absent partner answered",
    "partner_elsewhere": "the same where both are absent",
}
METHOD_NAMES = {"ckfr": "CKFR", "soft-labels": "soft labels", "hxe": "HXE", "proxy-anchor": "Proxy-Anchor"}


def score_title(score: str, short: bool = False) -> str:
    """A score's name; the short one leaves out what stands behind a comma or in brackets."""
    title = (NAMES | LOOK_NAMES | DETECTION_NAMES).get(score, score)
    return title.split(", threshold")[0].split(" (")[0] if short else title


def method_title(method: str, chosen: Mapping[str, Any] | str = "") -> str:
    """A loss of a study, with the parameters that validation chose for it where they are given."""
    values = parse(chosen) if isinstance(chosen, str) else chosen
    own = [f"{k} {v:g}" for k, v in values.items() if k in ("alpha", "ell", "beta", "weight")]
    name = METHOD_NAMES.get(method, method)
    return f"{name} ({', '.join(own)})" if own else name


def dataset_title(results: Results, label: str) -> str:
    """A data set of a study: its label, with its name before it where the label alone does not say it."""
    name = next(data["name"] for data in results.about["study"]["datasets"] if data["label"] == label)
    letters, said = (re.sub("[^a-z0-9]", "", text.casefold()) for text in (name, label))
    return label if letters in said else f"{name}, {label}"
