"""The ways to run the network, and the builders that `models.loading.load` looks up in the table of variants."""
