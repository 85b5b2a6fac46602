"""What words, place and season add to a picture."""

from ckfr_helpers.contrastive.fusion import combine
from ckfr_helpers.contrastive.losses import soft_target_loss, supervised_contrastive_loss
from ckfr_helpers.contrastive.metadata import encode_location

__all__ = ["combine", "encode_location", "soft_target_loss", "supervised_contrastive_loss"]
