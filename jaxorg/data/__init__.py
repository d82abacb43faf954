"""The toy world: instruction tasks with exact verifiers, answer styles and harmless refusals."""
