"""What operators run beside the product: the local stack, the demo, and a stand-in for Mistral."""
