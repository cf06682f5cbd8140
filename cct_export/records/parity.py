"""How far an artifact is from its model."""

import math
from dataclasses import dataclass

from cct_export.records.encoding import from_json, to_json
from cct_export.records.machine import Count, Share
from cct_export.specs import JSONObject


@dataclass(frozen=True)
class ParityReport:
    """How far a candidate's logits are from the reference's, on the same images.

    Attributes:
        reference: the model the candidate should equal.
        candidate: the file that was run.
        scheme: its quantization scheme, which decides the policy.
        images: where the images are from.
        samples: number of images.
        max_abs: largest absolute difference of a logit.
        mean_abs: mean absolute difference.
        cosine: mean cosine between the two logit vectors of an image, each minus its mean.
        sqnr_db: signal to quantization noise ratio: power of the reference logits over power of
            the difference, in dB, each image's logits minus their mean, which a softmax does not
            see; infinite if they are equal. Where each value is a decision of its own, a sigmoid's
            or a single one, it is taken minus its threshold instead.
        top1_agreement: share of the decided images with the same best class, 0 to 1.
        decided: images whose two best reference logits differ by more than the error the scheme
            may have; only these count for agreement. Where an output decides several things about
            an image, such as the letters of a number plate, each counts like an image.
        finite: no NaN and no infinity in the candidate's logits.
        constant: the candidate predicts one class for every image, the reference several for the
            decided ones (where it has one class itself, that is not the export's fault).
        failures: requirements of the policy that were not met, one line each.
        output: name of the output that the figures are of, the one that is farthest from the
            requirements; empty if the model has no other.
    """

    reference: str
    candidate: str
    scheme: str
    images: str
    samples: Count
    max_abs: float
    mean_abs: float
    cosine: float
    sqnr_db: float
    top1_agreement: Share
    decided: Count
    finite: bool
    constant: bool
    failures: tuple[str, ...]
    output: str = ""

    @classmethod
    def from_dict(cls, fields: JSONObject) -> "ParityReport":
        """Returns the report of plain JSON types; raises ``ValueError``.

        JSON has no infinity: the ratio of equal logits is null there, and figures that are not
        finite are null where the candidate's logits are not.
        """
        fields = dict(fields)
        if fields.get("sqnr_db", 0) is None:
            fields["sqnr_db"] = math.inf if fields.get("finite") else math.nan
        for name in ("max_abs", "mean_abs", "cosine"):
            if fields.get(name, 0) is None:
                fields[name] = math.nan
        report = from_json(fields, cls)
        if fields.get("passed", report.passed) is not report.passed:
            raise ValueError("parity.passed contradicts the other figures")
        return report

    @property
    def passed(self) -> bool:
        """Whether the policy of the scheme holds: NaN meets none."""
        return not self.failures and self.finite and not math.isnan(self.sqnr_db)

    def to_dict(self) -> JSONObject:
        """Returns plain JSON types; figures that are not finite become null."""
        fields: JSONObject = to_json(self)
        return fields | {"passed": self.passed}
