"""What a target needs of a GPU: paged keys and values, one ragged forward pass a step, captured as CUDA graphs."""
