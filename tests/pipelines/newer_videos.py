"""Families that make videos with a language model, or with sound, or that look at the values of masks."""

# diffusers writes tuple[int] for tuple[int, ...] and names one class where it takes many.
# pyright: reportArgumentType=false

import diffusers
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

from tests.pipelines.language import gemma3, llama, qwen25_text
from tests.pipelines.parts import TEXT_TOKENS, Size, clip, flow, t5, tokenizer


def hunyuan_video(size: Size) -> diffusers.DiffusionPipeline:
    """HunyuanVideo."""
    quarter = size.head_dim // 4
    return diffusers.HunyuanVideoPipeline(
        transformer=diffusers.HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_layers=size.layers, num_single_layers=size.layers,
            num_refiner_layers=1, num_attention_heads=size.heads, attention_head_dim=size.head_dim,
            text_embed_dim=size.text, pooled_projection_dim=size.text, rope_axes_dim=(2 * quarter, quarter, quarter),
        ),
        vae=diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=tuple(size.video_base * m for m in (1, 2, 2, 4)), layers_per_block=1,
            norm_num_groups=4, down_block_types=("HunyuanVideoDownBlock3D",) * 4,
            up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        ),
        scheduler=flow(), text_encoder=llama(size), tokenizer=tokenizer(512),
        text_encoder_2=clip(size), tokenizer_2=tokenizer(77),
    )  # fmt: skip


def hunyuan_video15(size: Size) -> diffusers.DiffusionPipeline:
    """HunyuanVideo 1.5, which puts its texts together by their masks."""
    quarter = size.head_dim // 4
    return diffusers.HunyuanVideo15Pipeline(
        transformer=diffusers.HunyuanVideo15Transformer3DModel(
            in_channels=9, out_channels=4, num_layers=size.layers // 2, num_refiner_layers=1,
            num_attention_heads=size.heads, attention_head_dim=size.head_dim, patch_size=1, patch_size_t=1,
            text_embed_dim=size.text, text_embed_2_dim=size.text, image_embed_dim=size.text,
            rope_axes_dim=(2 * quarter, quarter, quarter), target_size=size.video_pixels, task_type="t2v",
        ),
        vae=diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=tuple(size.video_base * m for m in (1, 1, 2, 2)), layers_per_block=1,
            spatial_compression_ratio=8, temporal_compression_ratio=4,
            downsample_match_channel=False, upsample_match_channel=False,
        ),
        scheduler=flow(), text_encoder=qwen25_text(size), tokenizer=tokenizer(1024),
        text_encoder_2=t5(size), tokenizer_2=tokenizer(256),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    )  # fmt: skip


def mochi(size: Size) -> diffusers.DiffusionPipeline:
    """Mochi, which attends to the tokens that a mask names."""
    channels = tuple(32 * m for m in ((1, 1, 1, 1) if size.layers < 4 else (1, 2, 2, 4)))  # normed in 32 groups
    return diffusers.MochiPipeline(
        transformer=diffusers.MochiTransformer3DModel(
            num_layers=size.layers, num_attention_heads=size.heads, attention_head_dim=size.head_dim,
            pooled_projection_dim=size.width // 2, text_embed_dim=size.text, time_embed_dim=size.text,
            max_sequence_length=TEXT_TOKENS,
        ),
        vae=diffusers.AutoencoderKLMochi(
            encoder_block_out_channels=channels, decoder_block_out_channels=channels, layers_per_block=(1,) * 5,
        ),
        scheduler=flow(), text_encoder=t5(size), tokenizer=tokenizer(256),
    )  # fmt: skip


def ltx2(size: Size) -> diffusers.DiffusionPipeline:
    """LTX-2: a video with sound."""
    channels = tuple(size.video_base * m for m in (1, 2, 4))
    halve, layers, audio_dim = (True,) * 3, 3, size.head_dim // 2
    audio_vae = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, in_channels=2, latent_channels=2,
        norm_type="pixel", causality_axis="height", mid_block_add_attention=False, mel_bins=8,
    )  # fmt: skip
    heads = {f"{kind}_connector_num_attention_heads": size.heads for kind in ("video", "audio")}
    dims = {f"{kind}_connector_attention_head_dim": size.text // size.heads for kind in ("video", "audio")}
    return diffusers.LTX2Pipeline(
        transformer=diffusers.LTX2VideoTransformer3DModel(
            in_channels=8, out_channels=8, num_layers=size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, cross_attention_dim=size.width, audio_in_channels=4,
            audio_out_channels=4, audio_num_attention_heads=size.heads, audio_attention_head_dim=audio_dim,
            audio_cross_attention_dim=size.heads * audio_dim, caption_channels=size.text,
        ),
        vae=diffusers.AutoencoderKLLTX2Video(
            latent_channels=8, block_out_channels=channels, decoder_block_out_channels=channels, patch_size=1,
            spatio_temporal_scaling=halve, decoder_spatio_temporal_scaling=halve, layers_per_block=(1,) * 3,
            decoder_layers_per_block=(1,) * 4, decoder_inject_noise=(False,) * 4, downsample_type=("spatial",) * 3,
            upsample_residual=(False,) * 3, upsample_factor=(1,) * 3,
        ),
        audio_vae=audio_vae, text_encoder=gemma3(size), tokenizer=tokenizer(512, side="left"), scheduler=flow(),
        connectors=LTX2TextConnectors(
            caption_channels=size.text, text_proj_in_factor=layers + 1, rope_type="split", rope_double_precision=False,
            video_connector_num_layers=1, audio_connector_num_layers=1, connector_rope_base_seq_len=TEXT_TOKENS,
            video_connector_num_learnable_registers=None, audio_connector_num_learnable_registers=None,
            causal_temporal_positioning=False, **heads, **dims,
        ),
        vocoder=LTX2Vocoder(
            in_channels=16, hidden_channels=32, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
            resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], output_sampling_rate=16000,
        ),
    )  # fmt: skip
