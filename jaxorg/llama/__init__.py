"""The Llama family: model, adapters, generation, checkpoints, tokenizer."""
