"""The quantization study: recipes as rows of a table, what builds them, and the measurements of docs/quantization.md."""
