"""An eye for the small model: a vision encoder of one layer and a projector, all weights zero, as llama.cpp loads one.

It sees nothing. But llama.cpp decodes a picture for it, cuts it into patches, and counts them with the prompt.
Source: GGUF version 3; the names are those of llama.cpp's `clip` architecture.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Final

IMAGE, PATCH = 56, 14
# One for each patch; beside them stand the marks of the template.
TOKENS: Final = (IMAGE // PATCH) ** 2
WIDTH, INNER, HEADS, LAYERS = 32, 64, 2, 1
# What the language model's own vectors have: SmolLM2-135M.
SPOKEN: Final = 576
ALIGNMENT: Final = 32

# Types of values, and of tensors.
UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
F32: Final = 0


def _text(said: str) -> bytes:
    return struct.pack("<Q", len(said)) + said.encode()


def _value(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", BOOL, value)
        case int():
            return struct.pack("<II", UINT32, value)
        case float():
            return struct.pack("<If", FLOAT32, value)
        case str():
            return struct.pack("<I", STRING) + _text(value)
        case list():
            return struct.pack("<IIQ", ARRAY, FLOAT32, len(value)) + struct.pack(f"<{len(value)}f", *value)
    raise TypeError(value)


def _facts() -> dict[str, object]:
    vision = {
        "image_size": IMAGE,
        "patch_size": PATCH,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "projection_dim": SPOKEN,
        "attention.head_count": HEADS,
        "attention.layer_norm_epsilon": 1e-5,
        "block_count": LAYERS,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    return {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        **{f"clip.vision.{name}": value for name, value in vision.items()},
    }


def _tensors() -> dict[str, tuple[int, ...]]:
    """Their shapes, the innermost dimension first."""
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (PATCH, PATCH, 3, WIDTH),
        "v.position_embd.weight": (WIDTH, TOKENS),
    }
    layers = [f"v.blk.{number}." for number in range(LAYERS)]
    square = [f"{layer}{name}" for layer in layers for name in ("attn_q", "attn_k", "attn_v", "attn_out")]
    norms = ["v.pre_ln", "v.post_ln", *(f"{layer}{name}" for layer in layers for name in ("ln1", "ln2"))]
    matrices = {
        **dict.fromkeys(square, (WIDTH, WIDTH)),
        **{f"{layer}ffn_up": (WIDTH, INNER) for layer in layers},
        **{f"{layer}ffn_down": (INNER, WIDTH) for layer in layers},
        "mm.0": (WIDTH, SPOKEN),
        "mm.2": (SPOKEN, SPOKEN),
    }
    for name, (given, made) in matrices.items():
        shapes |= {f"{name}.weight": (given, made), f"{name}.bias": (made,)}
    for name in norms:
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    return shapes


def write(path: Path) -> None:
    """Write it where `llamacpp.start` may be told of it."""
    facts, tensors = _facts(), _tensors()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    head += b"".join(_text(name) + _value(value) for name, value in facts.items())
    offset = 0
    for name, shape in tensors.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, F32, offset)
        offset += -(-4 * math.prod(shape) // ALIGNMENT) * ALIGNMENT
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + bytes(offset))
