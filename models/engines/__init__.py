"""One module per way to run the network. `models.variants.load` chooses among them."""
