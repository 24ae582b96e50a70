"""The names of the models under `/v2`: a model is the served network in one variant, such as `resnet18-int8`."""

from service.prediction import Service


def model_of(service: Service, variant: str) -> str:
    """Return the name of the model that stands for a variant."""
    return f"{service.network}-{variant}"


def variant_of(service: Service, model: str) -> str:
    """Return the variant that a model's name stands for, which may not be served; empty if it names another network."""
    prefix = model_of(service, "")
    return model.removeprefix(prefix) if model.startswith(prefix) else ""
