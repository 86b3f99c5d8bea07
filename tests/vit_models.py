"""A small vision transformer, its attention computed in each of the ways that networks use."""

import torch
from torch import nn
from torch.nn import functional


class HandWrittenAttention(nn.Module):
    """softmax(q kᵀ / sqrt(d)) v for each head, by two products."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = (
            heads,
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.drop = nn.Dropout(0.1)

    def forward(self, tokens):
        count, length, width = tokens.shape
        qkv = self.qkv(tokens).reshape(count, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.proj(self.mixed(q, k, v).transpose(1, 2).reshape(count, length, width))

    def mixed(self, q, k, v):
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        return self.drop(scores.softmax(dim=-1)) @ v


class FusedAttention(HandWrittenAttention):
    """The same, by the fused kernel."""

    def mixed(self, q, k, v):
        return functional.scaled_dot_product_attention(q, k, v)


class SummedAttention(HandWrittenAttention):
    """The same, by `einsum`."""

    def mixed(self, q, k, v):
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
        return torch.einsum("bhij,bhjd->bhid", functional.softmax(scores, -1), v)


class ModuleAttention(nn.Module):
    """torch's own module, with or without its weights returned."""

    def __init__(self, width, heads, need_weights=False):
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, batch_first=True)
        self.need_weights = need_weights

    def forward(self, tokens):
        return self.inner(tokens, tokens, tokens, need_weights=self.need_weights)[0]


class Block(nn.Module):
    """Attention and a perceptron, each after a norm and around a residual connection."""

    def __init__(self, width, heads, attention):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens):
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class TinyViT(nn.Module):
    """Patches of 4 x 4, a class token before them, and a head on it or on the patches' mean."""

    def __init__(
        self, size=(8, 12), *, width=12, heads=3, depth=3, attention=FusedAttention, pool="class"
    ):
        super().__init__()
        patches = (size[0] // 4) * (size[1] // 4)
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, patches + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, attention) for _ in range(depth))
        self.norm, self.head, self.pool = nn.LayerNorm(width), nn.Linear(width, 5), pool

    def embedded(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.first.expand(len(images), -1, -1), tokens], 1) + self.place

    def tail(self, tokens):
        tokens = self.norm(tokens)
        pooled = {"class": tokens[:, 0], "mean": tokens.mean(1), "patches": tokens[:, 1:].mean(1)}
        return self.head(pooled[self.pool])

    def forward(self, images):
        tokens = self.embedded(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.tail(tokens)
