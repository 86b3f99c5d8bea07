"""Models of which it is known what they read, and how much of a map lies there."""

import torch
from torch import Tensor, nn


def share_on_truth(values: Tensor, truth: Tensor) -> float:
    """Return the share of the strongest positions of a map that are on the truth.

    The strongest positions are the tenth with the largest absolute values, or as many as the truth
    has, whichever is fewer.

    Args:
        values: `(*S)`, the map of one input.
        truth: `(*S)`, whether the model reads a position.
    """
    count = min(max(values.numel() // 10, 1), int(truth.sum()))
    strongest = values.detach().double().abs().flatten().topk(count).indices
    return float(truth.flatten()[strongest].double().mean())


class CubeClassifier(nn.Module):
    """Tells by the values inside one cube of a volume `(B, 1, D, H, W)` which of two classes it is.

    Attributes:
        truth: `(1, D, H, W)`, the cube.
    """

    def __init__(self, shape=(14, 16, 18), corner=(3, 4, 5), side=9):
        super().__init__()
        torch.manual_seed(0)
        truth = torch.zeros(1, *shape, dtype=torch.bool)
        truth[(0, *(slice(start, start + side) for start in corner))] = True
        self.register_buffer("truth", truth)
        self.convolution, self.norm = nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.head = nn.Linear(4, 2)
        self.eval()

    def forward(self, volumes):
        inside = volumes * self.truth
        features = torch.tanh(self.norm(self.convolution(inside))) * self.truth
        return self.head(20 * features.sum((2, 3, 4)) / self.truth.sum())


class LagForecast(nn.Module):
    """Two classes, rise or fall of a series `(B, T, F)`, from its values three steps ago."""

    def __init__(self, steps=20, features=4, lag=3):
        super().__init__()
        torch.manual_seed(0)
        self.lag, self.hidden, self.head = lag, nn.Linear(features, 8), nn.Linear(8, 2)
        truth = torch.zeros(steps, features, dtype=torch.bool)
        truth[-lag] = True
        self.register_buffer("truth", truth)
        self.eval()

    def forward(self, series):
        return self.head(torch.tanh(self.hidden(series[:, -self.lag])))


class ChannelClassifier(nn.Module):
    """Classes of a series `(B, C, T)`, by a convolution along one of its channels."""

    def __init__(self, channels=5, steps=24, channel=2):
        super().__init__()
        torch.manual_seed(0)
        self.channel = channel
        self.convolution, self.head = nn.Conv1d(1, 6, 5, padding=2), nn.Linear(6, 3)
        truth = torch.zeros(channels, steps, dtype=torch.bool)
        truth[channel] = True
        self.register_buffer("truth", truth)
        self.eval()

    def forward(self, series):
        one = series.narrow(1, self.channel, 1)
        return self.head(torch.relu(self.convolution(one)).mean(-1))


class SquareSegmenter(nn.Module):
    """A segmenter of images `(B, 3, 20, 20)` whose whole region depends on one square.

    Attributes:
        truth: `(3, 20, 20)`, the square.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        truth = torch.zeros(3, 20, 20, dtype=torch.bool)
        truth[:, 4:13, 7:16] = True
        self.register_buffer("truth", truth)
        self.convolution, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 3)
        self.eval()

    def forward(self, images):
        features = torch.tanh(self.convolution(images * self.truth)) * self.truth[:1]
        logits = self.head(features.mean((2, 3)) * 10)
        return {"out": logits[:, :, None, None].expand(-1, -1, 10, 10)}


class CornerDetector(nn.Module):
    """A detector of two boxes, as torchvision's; the second is seen by the upper left corner."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        truth = torch.zeros(3, 20, 20, dtype=torch.bool)
        truth[:, :8, :8] = True
        self.register_buffer("truth", truth)
        self.convolution, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)
        self.eval()

    def forward(self, images):
        boxes = torch.tensor([[8.0, 8.0, 20.0, 20.0], [0.0, 0.0, 8.0, 8.0]])
        found = []
        for image in images:
            elsewhere, corner = image[:, 8:, 8:], image[:, :8, :8]
            seen = [
                self.head(torch.tanh(self.convolution(part)).mean((1, 2)) * 3)[index].sigmoid()
                for index, part in enumerate((elsewhere, corner))
            ]
            found.append(
                {"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": torch.stack(seen)}
            )
        return found


class LagForecaster(nn.Module):
    """Five steps of two series `(B, 20, 4)`; each reads all series three steps before the end."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        truth = torch.zeros(20, 4, dtype=torch.bool)
        truth[-3] = True
        self.register_buffer("truth", truth)
        self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 10)
        self.eval()

    def forward(self, series):
        return self.head(torch.tanh(self.hidden(series[:, -3]))).unflatten(1, (5, 2))
