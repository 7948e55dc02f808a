"""A training step in PyTorch, for `step_rivals.py`, in an environment of its own.

The same networks as ba_dist's, ReLUs in place, channels last, autocast in bf16, SGD with momentum
in one fused kernel, a fixed batch: the fastest plain loop. One process with all cores. The last
line it prints is the one that `throughput.py` prints as well.
"""

import argparse
import json
import os
import statistics
import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad


def conv(inside, width, size, stride=1):
    """A convolution without bias, padded on both sides."""
    return nn.Conv2d(inside, width, size, stride, size // 2, bias=False)


class Block(nn.Module):
    """A residual block: `layers`, added to its input or to what `shortcut` makes of it."""

    def __init__(self, layers, shortcut):
        super().__init__()
        self.layers, self.shortcut = nn.Sequential(*layers), shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.layers(x) + self.shortcut(x))


class OptionA(nn.Module):
    """Every second pixel, and zeros for the channels that are new."""

    def forward(self, x):
        new = x.shape[1]
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new // 2, new - new // 2))


def normalised(inside, width, size, stride=1, relu=True):
    """Convolution, BatchNorm and, mostly, a ReLU."""
    last = [nn.ReLU(inplace=True)] if relu else []
    return [conv(inside, width, size, stride), nn.BatchNorm2d(width), *last]


def cifar_resnet(depth, classes):
    """He et al. 2015, section 4.2: 6n+2 layers, shortcuts of option A."""
    layers, inside = normalised(3, 16, 3), 16
    for stage in range(3):
        for block in range((depth - 2) // 6):
            width, stride = 16 * 2**stage, 2 if stage and not block else 1
            parts = normalised(inside, width, 3, stride) + normalised(width, width, 3, 1, False)
            layers.append(Block(parts, OptionA() if stride == 2 else nn.Identity()))
            inside = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


def resnet50(classes):
    """He et al. 2015 with the stride in the 3x3 convolution of a block."""
    layers, inside = [*normalised(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            width, stride = 64 * 2**stage, 2 if stage and not block else 1
            parts = normalised(inside, width, 1) + normalised(width, width, 3, stride)
            parts += normalised(width, 4 * width, 1, 1, False)
            changes = inside != 4 * width
            other = nn.Sequential(*normalised(inside, 4 * width, 1, stride, False))
            layers.append(Block(parts, other if changes else nn.Identity()))
            inside = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    for name in ("batch-size", "image-size", "classes", "warm-up", "trials", "steps-per-trial"):
        parser.add_argument(f"--{name}", type=int, required=True)
    asked = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    depth = int(asked.model.removeprefix("resnet"))
    network = resnet50(asked.classes) if depth == 50 else cifar_resnet(depth, asked.classes)
    network = network.to(memory_format=torch.channels_last).train()
    sides = (asked.batch_size, 3, asked.image_size, asked.image_size)
    images = torch.randn(sides).to(memory_format=torch.channels_last)
    labels = torch.randint(asked.classes, (asked.batch_size,))
    update = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, fused=True
    )

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=asked.precision == "bf16"):
            loss = cross_entropy(network(images), labels)
        update.zero_grad(set_to_none=True)
        loss.backward()
        update.step()
        return loss.item()

    rates = []
    for _ in range(asked.warm_up + asked.trials):
        begun = time.perf_counter()
        for _ in range(asked.steps_per_trial):
            step()
        seconds = time.perf_counter() - begun
        rates.append(asked.batch_size * asked.steps_per_trial / seconds)
    rates = rates[asked.warm_up :]
    spread = statistics.stdev(rates) if len(rates) > 1 else 0.0
    print(json.dumps({"torch": torch.__version__}))
    print(f"Total img/sec on 1 CPU(s): {statistics.median(rates):.1f} +-{spread:.1f}")


if __name__ == "__main__":
    main()
