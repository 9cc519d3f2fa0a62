"""preflexor: local models that think, reflect and improve their answers, grounded in your own papers."""

__version__ = "0.1.0"
