#!/usr/bin/env python
# coding: utf-8

# # A lighthouse

# In[1]:


import torch
from diffusers import FluxPipeline


# In[2]:


pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16)


# In[3]:


pipe.to("cuda")
vae = pipe.vae


# In[4]:


image = pipe("a lighthouse").images[0]
image
