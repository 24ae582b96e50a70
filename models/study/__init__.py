"""The quantization study: recipes as rows of a table, what builds and measures them, and docs/quantization.md."""
