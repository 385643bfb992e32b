"""The model card of a bundle, in Hugging Face's form."""
