"""Training recipe for small Llamas that recall through Focused-Transformer memory layers."""
