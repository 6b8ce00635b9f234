from transformers import pipeline

pipe = pipeline("text-generation", device="cuda")
