"""The paper's CCT in PyTorch, written from its formulas; a program that saves one and its logits.

``python paper_in_torch.py FOLDER NAME SIZE CLASSES [sine]`` writes ``NAME.pth``,
``NAME.safetensors`` if that library is installed, and ``NAME.npz`` with images (uint8, NHWC), their
logits, the positions, and those of a larger image.
"""

import itertools
import math
import re
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SIZES = {2: (128, 2, 1), 4: (128, 2, 1), 6: (256, 4, 2), 7: (256, 4, 2), 14: (384, 6, 3)}
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.movedim(-3, 0).transpose(-2, -3).unbind()
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return self.proj((scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2))


class Block(nn.Module):
    def __init__(self, width, heads, ratio):
        super().__init__()
        self.pre_norm, self.norm1 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, ratio * width)
        self.linear2 = nn.Linear(ratio * width, width)

    def forward(self, x):
        x = self.norm1(x + self.self_attn(self.pre_norm(x)))
        return x + self.linear2(functional.gelu(self.linear1(x)))


class PaperCCT(nn.Module):
    """CCT-layers/kernel×convolutions for square images of ``size`` pixels."""

    def __init__(self, layers, kernel, convolutions, size, classes, sine=False):
        super().__init__()
        width, heads, ratio = SIZES[layers]
        filters = [3, *[64] * (convolutions - 1), width]
        stride, padding = max(1, kernel // 2 - 1), max(1, kernel // 2)
        self.normalization = IMAGENET if size > 32 else CIFAR
        self.tokenizer = nn.Module()
        self.tokenizer.conv_layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, kernel, stride, padding, bias=False),
                    nn.ReLU(),
                    nn.MaxPool2d(3, 2, 1),
                )
                for a, b in itertools.pairwise(filters)
            )
        )
        tokens = self.tokenizer.conv_layers(torch.zeros(1, 3, size, size)).flatten(2).shape[2]
        parts = self.classifier = nn.Module()
        table = torch.randn(1, tokens, width) * 0.2
        if sine:
            angles = torch.tensor(
                [[p / 10000 ** (2 * (i // 2) / width) for i in range(width)] for p in range(tokens)]
            )
            even = torch.arange(width) % 2 == 0
            table = torch.where(even, angles.sin(), angles.cos())[None]
        parts.positional_emb = nn.Parameter(table, requires_grad=not sine)
        parts.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(layers))
        parts.norm = nn.LayerNorm(width)
        parts.attention_pool = nn.Linear(width, 1)
        parts.fc = nn.Linear(width, classes)

    def forward(self, pixels):
        """Returns logits of raw pixels 0–255, ``(batch, height, width, 3)``."""
        mean, std = map(torch.tensor, self.normalization)
        x = ((pixels / 255 - mean) / std).movedim(-1, 1)
        parts = self.classifier
        x = self.tokenizer.conv_layers(x).flatten(2).mT + parts.positional_emb
        for block in parts.blocks:
            x = block(x)
        x = parts.norm(x)
        return parts.fc((parts.attention_pool(x).softmax(1) * x).sum(1))


def random_model(name, size, classes, sine):
    """Returns a model with random weights, including norms and biases."""
    torch.manual_seed(0)
    layers, kernel, convolutions = map(int, re.match(r"cct_(\d+)_(\d)x(\d)", name).groups())
    model = PaperCCT(layers, kernel, convolutions, size, classes, sine).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn(weight.shape))
            elif "positional" not in key:
                weight.mul_(1.5)
    return model


def resized(table):
    """Returns the positions of a grid with three more tokens per side, as in the paper's code."""
    side = math.isqrt(table.shape[1])
    grid = table.mT.unflatten(-1, (side, side))
    return functional.interpolate(grid, (side + 3, side + 3), mode="bilinear").flatten(2).mT[0]


if __name__ == "__main__":
    folder, name, size, classes, *more = sys.argv[1:]
    model = random_model(name, int(size), int(classes), "sine" in more)
    images = np.random.default_rng(0).integers(0, 256, (4, int(size), int(size), 3), np.uint8)
    images[0] = 255
    images[1] //= 8
    with torch.no_grad():
        logits = model(torch.from_numpy(images).float()).numpy()
    state = model.state_dict()
    torch.save(state, Path(folder) / f"{name}.pth")
    np.savez(
        Path(folder) / f"{name}.npz",
        images=images,
        logits=logits,
        positions=state["classifier.positional_emb"][0].numpy(),
        resized=resized(state["classifier.positional_emb"]).numpy(),
    )
    try:
        from safetensors.numpy import save_file
    except ImportError:
        sys.exit()
    save_file({k: v.numpy() for k, v in state.items()}, Path(folder) / f"{name}.safetensors")
