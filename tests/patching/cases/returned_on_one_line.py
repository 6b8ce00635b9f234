import torch, streamlit as st
from diffusers import AutoPipelineForText2Image as Auto
@st.cache_resource
def get():
    p = Auto.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16); p.enable_model_cpu_offload(); return p
st.image(get()("a lamp").images[0])
