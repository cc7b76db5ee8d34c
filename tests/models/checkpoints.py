"""Checkpoints of every family that the workers load, tiny and random, built in about a second each.

What they answer is nonsense, so they prove what is ours and no more: that each family loads by the path of
its real ones, that inputs fit, that outputs come back in shape. Tokenizers are trained on a few sentences;
sizes are the smallest that the architectures allow.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from pathlib import Path

SENTENCES: Final = [
    "a cat sits on the mat and looks at a person in the street",
    "what is in the picture? how many people are there? describe it",
    "user assistant system query passage: the quick brown fox jumps over the lazy dog 0123456789",
]

CHAT: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_OF_PARTS: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SMALL: Final = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT: Final = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 256}


def tokenizer(
    *,
    special: tuple[str, ...] = (),
    ends: bool = False,
    size: int = 400,
    **options: Any,
) -> Any:
    """A byte-level tokenizer; with `ends`, texts are wrapped as BERT and CLIP wrap theirs."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    control = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *special]
    core.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=control,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if ends:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        **{"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<pad>", **options},
    )


def _save(folder: Path, *parts: Any) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder


def _random(model_class: Any, config: Any) -> Any:
    torch.manual_seed(0)
    return model_class(config).eval()


# --- Embedding ----------------------------------------------------------------------------------------------


def bert(folder: Path) -> Path:
    """E5, MiniLM, BGE."""
    words = tokenizer(ends=True, model_max_length=64)
    config = transformers.BertConfig(vocab_size=len(words), **SMALL, max_position_embeddings=64)
    return _save(folder, words, _random(transformers.BertModel, config))


def with_pooling(folder: Path, *, prompts: dict[str, str], **pooling: bool) -> Path:
    """What sentence-transformers keeps beside the weights."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


def siglip(folder: Path) -> Path:
    """SigLIP, and SigLIP 2 of a fixed size."""
    words = tokenizer(model_max_length=16)
    config = transformers.SiglipConfig(
        text_config={**SMALL, "vocab_size": len(words), "max_position_embeddings": 16, "projection_size": 32},
        vision_config={**SMALL, "image_size": 32, "patch_size": 16},
    )
    pictures = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    return _save(folder, words, pictures, _random(transformers.SiglipModel, config))


def siglip2(folder: Path) -> Path:
    """SigLIP 2 of any shape (NaFlex). Its processor insists on patches of 16."""
    words = tokenizer(model_max_length=16)
    config = transformers.Siglip2Config(
        text_config={**SMALL, "vocab_size": len(words), "max_position_embeddings": 16, "projection_size": 32},
        vision_config={**SMALL, "num_patches": 256, "patch_size": 16},
    )
    pictures = transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=256)
    return _save(folder, words, pictures, _random(transformers.Siglip2Model, config))


# --- Chat ---------------------------------------------------------------------------------------------------


def _chat(folder: Path, config_class: Any, model_class: Any, **options: Any) -> Path:
    words = tokenizer(chat_template=CHAT)
    config = config_class(
        vocab_size=len(words), **TEXT, pad_token_id=0, bos_token_id=1, eos_token_id=2, **options
    )
    return _save(folder, words, _random(model_class, config))


def llama(folder: Path) -> Path:
    return _chat(folder, transformers.LlamaConfig, transformers.LlamaForCausalLM)


def qwen3(folder: Path) -> Path:
    return _chat(folder, transformers.Qwen3Config, transformers.Qwen3ForCausalLM, head_dim=8)


def phi3(folder: Path) -> Path:
    """Phi-4-mini."""
    return _chat(folder, transformers.Phi3Config, transformers.Phi3ForCausalLM)


# --- Chat about pictures ------------------------------------------------------------------------------------


def llava(folder: Path) -> Path:
    words = tokenizer(special=("<image>",), chat_template=CHAT_OF_PARTS.replace("IMAGE", "<image>"))
    pictures = transformers.CLIPImageProcessor(
        size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}
    )
    processor = transformers.LlavaProcessor(
        pictures,
        words,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=words.chat_template,
        num_additional_image_tokens=1,
    )
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**SMALL, image_size=32, patch_size=16),
        text_config=_text(transformers.LlamaConfig, words),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    return _save(folder, processor, _random(transformers.LlavaForConditionalGeneration, config))


def smolvlm(folder: Path) -> Path:
    control = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<video>")
    words = tokenizer(
        special=(*control, *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4))),
        chat_template=CHAT_OF_PARTS.replace("IMAGE", "<image>"),
    )
    pictures = transformers.SmolVLMImageProcessor(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
    )
    config = transformers.SmolVLMConfig(
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
        text_config=_text(transformers.LlamaConfig, words),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    model = _random(transformers.SmolVLMForConditionalGeneration, config)
    return _with_settings(
        _save(folder, words, pictures, model), processor_class="SmolVLMProcessor", image_seq_len=4
    )


def qwen2_5_vl(folder: Path) -> Path:
    pad = "<|vision_start|><|image_pad|><|vision_end|>"
    words = tokenizer(
        special=("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        chat_template=CHAT_OF_PARTS.replace("IMAGE", pad),
    )
    pictures = transformers.Qwen2VLImageProcessor(
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 16 * 16, "longest_edge": 32 * 32},
    )
    text = {
        **TEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    }
    ids = {
        f"{name}_id": words.convert_tokens_to_ids(f"<|{control}|>")
        for name, control in (
            ("image_token", "image_pad"),
            ("video_token", "video_pad"),
            ("vision_start_token", "vision_start"),
            ("vision_end_token", "vision_end"),
        )
    }
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 37,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        text_config={
            **text,
            "vocab_size": len(words),
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        **ids,
    )
    model = _random(transformers.Qwen2_5_VLForConditionalGeneration, config)
    return _with_settings(_save(folder, words, pictures, model), processor_class="Qwen2_5_VLProcessor")


def _text(config_class: Any, words: Any) -> Any:
    return config_class(vocab_size=len(words), **TEXT, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def _with_settings(folder: Path, **settings: Any) -> Path:
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder


# --- Captions -----------------------------------------------------------------------------------------------


def _blip(folder: Path, model_class: Any) -> Path:
    words = transformers.BertTokenizer.from_pretrained(_bert_words(folder))
    pictures = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    text = {
        **SMALL,
        "vocab_size": len(words),
        "max_position_embeddings": 256,
        "encoder_hidden_size": 32,
        "projection_dim": 32,
        "bos_token_id": words.cls_token_id,
        "eos_token_id": words.sep_token_id,
        "sep_token_id": words.sep_token_id,
        "pad_token_id": words.pad_token_id,
    }
    config = transformers.BlipConfig(
        text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 16}, projection_dim=32
    )
    return _save(folder, transformers.BlipProcessor(pictures, words), _random(model_class, config))


def _bert_words(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    words = sorted({word.strip("?:") for sentence in SENTENCES for word in sentence.split()})
    control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*control, *words, "?", ":"]))
    return folder


def blip_caption(folder: Path) -> Path:
    return _blip(folder, transformers.BlipForConditionalGeneration)


def blip_vqa(folder: Path) -> Path:
    return _blip(folder, transformers.BlipForQuestionAnswering)


def vit_gpt2(folder: Path) -> Path:
    words = tokenizer()
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**SMALL, image_size=32, patch_size=16),
        transformers.GPT2Config(vocab_size=len(words), **sizes, bos_token_id=1, eos_token_id=2),
    )
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    pictures = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    return _save(folder, words, pictures, _random(transformers.VisionEncoderDecoderModel, config))


MOONDREAM: Final = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class MoonConfig(PretrainedConfig):
    model_type = "moon"

class Moon(PreTrainedModel):
    config_class = MoonConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(1, 1)
        self.post_init()

    def caption(self, image, length="normal"):
        return {"caption": f"a picture of {image.width} by {image.height} "}

    def query(self, image, question):
        return {"answer": f"{question} {image.width}"}
"""


def moondream(folder: Path, code: str = MOONDREAM) -> Path:
    """A checkpoint that brings its code along, with the two methods of Moondream 2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "moon.py").write_text(code)
    auto_map = {"AutoConfig": "moon.MoonConfig", "AutoModelForCausalLM": "moon.Moon"}
    config = {"model_type": "moon", "architectures": ["Moon"], "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    weights = {"layer.weight": torch.zeros(1, 1), "layer.bias": torch.zeros(1)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# --- Detection ----------------------------------------------------------------------------------------------

NAMES: Final = {0: "person", 1: "cat", 2: "bus"}
_DETR: Final = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [32, 32, 32],
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "d_model": 32,
    "num_queries": 20,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "num_denoising": 0,
    "id2label": NAMES,
    "label2id": {name: number for number, name in NAMES.items()},
}


def _detector(folder: Path, config: Any, model_class: Any) -> Path:
    pictures = transformers.RTDetrImageProcessor(size={"height": 64, "width": 64})
    model = _random(model_class, config)
    # Random scores lie around the bias's; so that some things are found and some are not.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "class_embed" in name or "enc_score_head" in name:
                parameter.copy_(torch.randn_like(parameter))
    return _save(folder, pictures, model)


def d_fine(folder: Path) -> Path:
    backbone = transformers.HGNetV2Config(
        embedding_size=8,
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 32, 32],
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 32, 32],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[16, 32, 32, 32],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.DFineConfig(**_DETR, backbone_config=backbone)
    return _detector(folder, config, transformers.DFineForObjectDetection)


def rt_detr_v2(folder: Path) -> Path:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 32, 32, 32],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.RTDetrV2Config(**_DETR, backbone_config=backbone)
    return _detector(folder, config, transformers.RTDetrV2ForObjectDetection)


# --- Outlines -----------------------------------------------------------------------------------------------


def clipseg(folder: Path) -> Path:
    words = tokenizer(ends=True, model_max_length=16)
    pictures = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    config = transformers.CLIPSegConfig(
        text_config={
            **SMALL,
            "vocab_size": len(words),
            "max_position_embeddings": 16,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
        projection_dim=32,
        extract_layers=[0, 1],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    model = _random(transformers.CLIPSegForImageSegmentation, config)
    return _save(folder, transformers.CLIPSegProcessor(pictures, words), model)


_SIDE: Final = 56  # four patches of 14


def _sam3_config(words: Any, width: int = 32) -> Any:
    part = {"hidden_size": width, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {
        "backbone_config": {
            "model_type": "sam3_vit_model",
            **part,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "image_size": _SIDE,
            "patch_size": 14,
            "window_size": 2,
            "global_attn_indexes": [1],
            "pretrain_image_size": 28,
        },
        "fpn_hidden_size": width,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    text = {
        **SMALL,
        "model_type": "clip_text_model",
        "vocab_size": len(words),
        "max_position_embeddings": 32,
        "projection_dim": 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return transformers.Sam3Config(
        vision_config=vision,
        text_config=text,
        geometry_encoder_config={**part, "num_layers": 1},
        detr_encoder_config={**part, "num_layers": 1},
        detr_decoder_config={**part, "num_layers": 1, "num_queries": 6},
        mask_decoder_config={"hidden_size": width, "num_attention_heads": 2},
    )


def _sure(model: Any) -> Any:
    """Random weights are never sure of anything: so that there are things to outline and to follow."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "presence_head" in name and name.endswith("layer3.bias"):
                parameter.fill_(6.0)
            elif "pred_obj_score_head" in name and name.endswith("proj_out.bias"):
                parameter.fill_(10.0)
            elif "mask_decoder" in name and parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
            elif "dot_product_scoring" in name:
                parameter.copy_(torch.randn_like(parameter))
    return model


def sam3(folder: Path) -> Path:
    words = tokenizer(ends=True)
    return _save(folder, words, _sure(_random(transformers.Sam3Model, _sam3_config(words))))


def sam3_video(folder: Path) -> Path:
    """As published: one checkpoint with a detector and a tracker."""
    words = tokenizer(ends=True)
    detector = _sam3_config(words, width=128)
    part = {"hidden_size": 128}
    tracker = transformers.Sam3TrackerVideoConfig(
        vision_config=detector.vision_config.to_dict(),
        prompt_encoder_config={**part, "image_size": _SIDE},
        mask_decoder_config={**part, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
        image_size=_SIDE,
    )
    config = transformers.Sam3VideoConfig(
        detector_config=detector.to_dict(), tracker_config=tracker.to_dict(), low_res_mask_size=16
    )
    return _save(folder, words, _sure(_random(transformers.Sam3VideoModel, config)))
