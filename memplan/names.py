"""diffusers' names for what both the dry run and techniques take hold of."""

ENCODE_PROMPT = "encode_prompt"
"""The method by which its pipelines encode their prompts."""
DISPATCHED = "_attention_backend"
"""The attribute by which a processor tells its dispatcher what to compute attention with; None leaves it to the
process."""
