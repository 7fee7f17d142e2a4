"""solversearch: few-step sampling procedures for pretrained diffusion and flow models, searched and proven."""

__version__ = "0.1.0"
