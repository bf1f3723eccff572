"""``ModelShape``: the numbers of a model that decide what its passes cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder that decide what its passes cost.

    Attributes:
        parameters: All of them, tied ones counted once.
        multiplied: N, those that each token is multiplied with: without the input embeddings,
            which are looked up, with the output head, also where it is tied to them; of experts
            the share that a token visits.
        layers: Number of layers.
        attention_width: Heads times the dimension of a head.
        cache_width: The same of the heads of keys and values.
    """

    parameters: int
    multiplied: int
    layers: int
    attention_width: int
    cache_width: int

    def forward_flops(self, tokens: float, context: float) -> float:
        """Floating-point operations of a forward pass.

        ``2 N`` for each token (Kaplan et al. 2020, section 2.1) and ``4 · layers ·
        attention_width · context`` for its attention (Chowdhery et al. 2022, appendix B, a third
        of the 12 there); what lies behind a token in its row counts, as it is mostly computed.

        Args:
            tokens: Number of tokens.
            context: Tokens that each attends to.
        """
        attention = 4 * self.layers * self.attention_width * context
        return tokens * (2 * self.multiplied + attention)

    def training_flops(self, tokens: float, length: float) -> float:
        """The same of training: a backward pass costs two forward passes, 6 N in all.

        Args:
            tokens: Number of tokens.
            length: Tokens of a sequence.
        """
        return 3 * self.forward_flops(tokens, length)

    def cache_bytes(self, tokens: float, itemsize: int) -> float:
        """Bytes of the keys and values of so many tokens."""
        return 2 * self.layers * self.cache_width * tokens * itemsize
