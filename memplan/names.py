"""diffusers' names for what both the dry run and techniques take hold of."""

ENCODE_PROMPT = "encode_prompt"
"""The method by which its pipelines encode their prompts."""
SHARED = frozenset({
    "img_ids", "txt_ids", "image_rotary_emb", "padding_mask", "visual_rope_pos", "text_rope_pos",
})  # fmt: skip
"""Arguments of denoisers that all samples have in common; their first dimension may be as long as the batch by
chance."""
DISPATCHED = "_attention_backend"
"""The attribute by which a processor tells its dispatcher what to compute attention with; None leaves it to the
process."""
