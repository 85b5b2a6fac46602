"""What place and date alone say of the class: what every prior has in common, and the learnt one.

``fit(longitude, latitude, date, labels)`` learns, ``log_probabilities(longitude, latitude, date)`` answers
with (N, C), normalised over classes; `fusion.combine` multiplies it with a classifier's. NaN is what is not
known: the rest of a row still counts, and the answer to a row with nothing known is NaN.
"""

import math
from typing import Protocol, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ckfr_helpers.contrastive.metadata import MetadataEncoder, encode_location, is_known
from ckfr_helpers.metrics.inputs import as_labels
from ckfr_helpers.models.classifier import evaluating
from ckfr_helpers.runtime import CkfrError, check_number

Column = ArrayLike | Tensor
ROWS = 16384  # answered at a time, so that a map of the world fits into memory


class Prior(Protocol):
    """What `GeoPrior`, `density.GridPrior` and `density.KernelPrior` have in common."""

    def fit(self, longitude: Column, latitude: Column, date: Column, labels: Column) -> Self:
        """Learn from N examples; (N,) each, labels from 0."""
        ...

    def log_probabilities(self, longitude: Column, latitude: Column, date: Column) -> Tensor:
        """(N,) each -> (N, C)."""
        ...


def labels_of(rows: Tensor, labels: Column, classes: int) -> Tensor:
    """Labels (N,) int64 from 0 to ``classes`` - 1, one for each of N rows; anything else is a `CkfrError`."""
    truth = torch.from_numpy(as_labels(labels, classes))  # type: ignore[arg-type]
    if len(rows) != len(truth):
        raise CkfrError(f"{len(rows)} rows stand beside {len(truth)} labels; expected as many.")
    return truth


def presence_loss(logits: Tensor, background: Tensor, labels: Tensor) -> Tensor:
    """Seen here, hence not elsewhere: the loss of the geographic prior, without its terms for photographers.

    The mean over examples and classes of ``-log(1 - p)``, and of ``-C log p`` for the class that was seen,
    plus the mean of ``-log(1 - p)`` at random places, where nobody knows what lives. As in the released code
    1e-5 stands beside p in every logarithm.

    Args:
        logits: (B, C) at the places of the examples.
        background: (B', C) at random places.
        labels: (B,) integers.

    Source:
        Mac Aodha et al., ICCV 2019, and the authors' code (geo_prior).
    """
    seen, absent, elsewhere = logits.sigmoid(), (-logits).sigmoid(), (-background).sigmoid()
    each, own = -(absent + 1e-5).log(), -logits.shape[1] * (seen + 1e-5).log()
    chosen = torch.zeros_like(each, dtype=torch.bool).scatter_(1, labels[:, None], True)
    return torch.where(chosen, own, each).mean() - (elsewhere + 1e-5).log().mean()


def random_locations(count: int, generator: torch.Generator) -> Tensor:
    """Encoded places (count, 6), uniform on the sphere and over the year.

    The released code means the same, but takes two coordinates of a random point of the sphere for longitude
    and latitude, which leaves out the corners of the map.
    """
    draws = torch.rand(3, count, generator=generator, dtype=torch.float64)
    latitude = torch.rad2deg((2 * draws[1] - 1).asin())
    return encode_location(360 * draws[0] - 180, latitude, draws[2]).float()


class GeoPrior(nn.Module):
    """The geographic prior network: `MetadataEncoder`, then one sigmoid a class that says "lives here, now".

    Args:
        classes: C.
        width, blocks, dropout: of the encoder.

    Source:
        Mac Aodha et al., ICCV 2019. Left out: photographers, and the bound of 100 examples a class and epoch.
    """

    def __init__(self, classes: int, width: int = 256, blocks: int = 4, dropout: float = 0.5) -> None:
        super().__init__()
        check_number("classes", classes, 2, whole=True)
        self.encoder = MetadataEncoder(width, blocks, dropout, missing="zero")
        self.classifier = nn.Linear(width, classes, bias=False)

    def forward(self, encoded: Tensor) -> Tensor:
        """(N, 6) of `encode_location` -> logits (N, C)."""
        return self.classifier(self.encoder(encoded))

    def fit(
        self,
        longitude: Column,
        latitude: Column,
        date: Column,
        labels: Column,
        *,
        epochs: int = 30,
        batch_size: int = 1024,
        learning_rate: float = 5e-4,
        seed: int = 0,
    ) -> Self:
        """Learn by Adam, its rate times 0.98 an epoch; the seed fixes batches, background and dropout."""
        check_number("epochs", epochs, 1, whole=True)
        check_number("batch_size", batch_size, 1, whole=True)
        device = self.classifier.weight.device
        encoded = encode_location(longitude, latitude, date).float()
        truth = labels_of(encoded, labels, self.classifier.out_features)
        rows = is_known(encoded).nonzero()[:, 0]
        if not len(rows):
            raise CkfrError("No example has a place or a date; expected at least one to learn from.")
        generator = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.Adam(self.parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.98)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.train()
            for _ in range(epochs):
                for batch in rows[torch.randperm(len(rows), generator=generator)].split(batch_size):
                    places = torch.cat([encoded[batch], random_locations(len(batch), generator)]).to(device)
                    here, elsewhere = self(places).chunk(2)
                    optimiser.zero_grad()
                    presence_loss(here, elsewhere, truth[batch].to(device)).backward()
                    optimiser.step()
                schedule.step()
        return self

    @torch.no_grad()
    def log_probabilities(self, longitude: Column, latitude: Column, date: Column) -> Tensor:
        """(N,) each -> (N, C) float32 on the CPU, NaN for rows with nothing known."""
        encoded = encode_location(longitude, latitude, date).float()
        device = self.classifier.weight.device
        with evaluating(self):
            found = [nn.functional.logsigmoid(self(part.to(device))).cpu() for part in encoded.split(ROWS)]
        return torch.cat(found).log_softmax(1).masked_fill(~is_known(encoded)[:, None], math.nan)
