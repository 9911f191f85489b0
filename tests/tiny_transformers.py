"""Networks of transformers with random weights, small enough for tests, and their folders."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch

from mirror_analysis.torchvision_shim import ensure_torchvision

SIDE, CLIP, BLOCKS = 32, 4, 3
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
PICTURE = {**SIZES, "image_size": SIDE, "patch_size": 8}
TEXT = {**SIZES, "num_hidden_layers": 1, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2}
DECODER = {
    "decoder_num_attention_heads": 2,
    "decoder_hidden_size": 16,
    "decoder_intermediate_size": 16,
    "decoder_num_hidden_layers": 1,
}
VJEPA = {
    "hidden_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "mlp_ratio": 1.5,
    "crop_size": SIDE,
    "patch_size": 8,
    "frames_per_clip": CLIP,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 2,
    "pred_num_mask_tokens": 1,
    "num_pooler_layers": 2,
}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 2]}

# Class -> the class of its config, and what that is given.
NETWORKS = {
    "VideoMAEModel": ("VideoMAEConfig", {**PICTURE, "num_frames": CLIP}),
    "VideoMAEForPreTraining": ("VideoMAEConfig", {**PICTURE, **DECODER, "num_frames": CLIP}),
    "VideoMAEForVideoClassification": ("VideoMAEConfig", {**PICTURE, "num_frames": CLIP}),
    "VivitModel": (
        "VivitConfig",
        {**SIZES, "image_size": SIDE, "num_frames": CLIP, "tubelet_size": [2, 8, 8]},
    ),
    "TimesformerModel": ("TimesformerConfig", {**PICTURE, "num_frames": CLIP}),
    "VJEPA2Model": ("VJEPA2Config", VJEPA),
    "VJEPA2ForVideoClassification": ("VJEPA2Config", VJEPA),
    "XCLIPModel": (
        "XCLIPConfig",
        {
            "vision_config": {
                **PICTURE,
                "num_frames": CLIP,
                "mit_hidden_size": 32,
                "mit_intermediate_size": 48,
                "mit_num_attention_heads": 4,
            },
            "text_config": TEXT,
            "projection_dim": 32,
        },
    ),
    "CLIPModel": ("CLIPConfig", {"vision_config": PICTURE, "text_config": TEXT}),
    "CLIPVisionModel": ("CLIPVisionConfig", PICTURE),
    "SiglipModel": ("SiglipConfig", {"vision_config": PICTURE, "text_config": TEXT}),
    "SiglipVisionModel": ("SiglipVisionConfig", PICTURE),
    "Dinov2Model": ("Dinov2Config", PICTURE),
    "Dinov2ForImageClassification": ("Dinov2Config", PICTURE),
    "Dinov2WithRegistersModel": (
        "Dinov2WithRegistersConfig",
        {**PICTURE, "num_register_tokens": 4},
    ),
    "DINOv3ViTModel": ("DINOv3ViTConfig", {**PICTURE, "num_register_tokens": 2}),
    "DINOv3ConvNextModel": (
        "DINOv3ConvNextConfig",
        {"hidden_sizes": [8, 16, 24, 40], "depths": [1, 1, 2, 1], "image_size": 64},
    ),
    "ViTModel": ("ViTConfig", PICTURE),
    "ViTForImageClassification": ("ViTConfig", PICTURE),
    "DeiTModel": ("DeiTConfig", PICTURE),
    "BeitModel": ("BeitConfig", PICTURE),
    "IJepaModel": ("IJepaConfig", PICTURE),
    "ConvNextModel": ("ConvNextConfig", {**STAGES, "num_stages": 2, "image_size": SIDE}),
    "SwinModel": (
        "SwinConfig",
        {
            "image_size": SIDE,
            "patch_size": 2,
            "embed_dim": 8,
            "depths": [1, 2],
            "num_heads": [2, 2],
            "window_size": 4,
        },
    ),
    "ResNetForImageClassification": (
        "ResNetConfig",
        {**STAGES, "embedding_size": 8, "layer_type": "basic", "num_labels": 5},
    ),
}
# What is done to pictures, for the networks of SIDE pixels.
SMALL = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": SIDE, "width": SIDE},
    "resample": 2,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


@cache
def network(name: str):
    """A network with random weights that are not as small as they are drawn for training."""
    ensure_torchvision()
    import transformers

    config, given = NETWORKS[name]
    torch.manual_seed(0)
    with torch.no_grad():
        made = getattr(transformers, name)(getattr(transformers, config)(**given)).eval()
        for weight_name, weight in sorted(made.named_parameters()):
            g = torch.Generator().manual_seed(sum(weight_name.encode()))
            spread = 0.5 if weight.ndim < 2 else 1.0 / weight[0].numel() ** 0.5
            weight.add_(spread * torch.randn(weight.shape, generator=g) * 0.3)
    return made


def saved(name: str, folder: Path, *, preprocessor: dict | None = SMALL, **kinds) -> Path:
    """The folder that transformers writes, with a preprocessor's file."""
    from mirror_analysis.models.transformers.files import quiet

    with quiet():
        network(name).save_pretrained(folder, **kinds)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


class Scene:
    """An episode of noise, as models read one."""

    def __init__(self, frames: int, seed: int, instruction: str = "") -> None:
        g = np.random.default_rng(seed)
        self.id, self.instruction, self.length = f"scene{seed}", instruction, frames
        self.steps = np.arange(frames)
        self.timestamps = self.steps / 10
        self.pictures = g.integers(0, 256, (frames, 40, 50, 3), dtype=np.uint8)

    def stream(self, name: str) -> np.ndarray:
        return self.pictures
